use super::*;
use ::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in pairs {
        all.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    all
}

fn structured(body: &str) -> Result<Event, EventError> {
    let own = headers(&[("content-type", "application/cloudevents+json; charset=utf-8")]);
    http::decode(&own, Bytes::copy_from_slice(body.as_bytes())).map(|mut own| own.remove(0))
}

const REQUIRED: [(&str, &str); 4] =
    [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "t")];

#[test]
fn binary_requests() {
    let check = |change: &[(&str, &str)], wrong: Option<EventError>| {
        let mut own = headers(&REQUIRED);
        for (name, value) in change {
            own.remove(*name);
            if !value.is_empty() {
                own.insert(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
            }
        }
        assert_eq!(http::decode(&own, Bytes::from_static(b"x")).err(), wrong, "{change:?}");
    };
    let value = |name: &str, wanted| Some(EventError::Value { name: name.to_owned(), wanted });
    check(&[], None);
    check(&[("ce-specversion", "0.3")], None);
    check(&[("ce-specversion", "")], Some(EventError::NotAnEvent));
    check(&[("ce-specversion", "9.000001")], Some(EventError::Version { version: "9.000001".to_owned() }));
    check(&[("ce-id", "")], Some(EventError::Missing { name: "id" }));
    check(&[("ce-type", "")], Some(EventError::Missing { name: "type" }));
    check(&[("ce-source", "")], Some(EventError::Missing { name: "source" }));
    check(&[("ce-source", "1:2/x")], value("source", "a URI-reference"));
    check(&[("ce-source", "http://a/%2520x")], None);
    check(&[("ce-time", "yesterday")], value("time", "an RFC 3339 time"));
    check(&[("ce-time", "2018-04-26T14:48:09+02:00")], None);
    check(&[("ce-subject", "%20")], Some(EventError::Missing { name: "subject" }));
    check(&[("ce-my-ext", "x")], Some(EventError::Name { name: "my-ext".to_owned() }));
    check(&[("ce-ext", "%ff")], value("ext", "UTF-8 text"));
    check(&[("content-type", "a b/c")], value("datacontenttype", "a media type"));
    check(&[("content-type", "text/plain; charset=\"utf-8\"")], None);
}

#[test]
fn structured_requests() {
    let of = |rest: &str| {
        structured(&format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t"{rest}}}"#))
    };
    let data = |rest: &str| of(rest).unwrap().data;
    assert_eq!(data(""), None);
    assert_eq!(data(r#","data":{ "b":1.0, "a":2}"#).unwrap(), r#"{ "b":1.0, "a":2}"#);
    assert_eq!(data(r#","datacontenttype":"text/plain","data":"h\u00e4""#).unwrap(), "hä");
    assert_eq!(data(r#","data_base64":"aGk=""#).unwrap(), "hi");
    assert_eq!(of(r#","n":5,"b":true,"z":null"#).unwrap().extensions.len(), 2);
    assert!(of(r#","data":1,"data_base64":"aGk=""#).is_err());
    assert!(of(r#","datacontenttype":"text/plain","data":{}"#).is_err());
    assert!(of(r#","ext":{}"#).is_err());
    assert!(of(r#","ext":1.5"#).is_err());
    assert!(structured(r#"{"id":"1","source":"/s","type":"t"}"#).is_err());
    assert!(structured("[]").is_err());
    let old = r#"{"specversion":"0.3","id":"1","source":"/s","type":"t","datacontentencoding":"base64","data":"aGk="}"#;
    let old = structured(old).unwrap();
    assert_eq!((old.version, old.data.as_deref()), (SpecVersion::V03, Some(&b"hi"[..])));
}

#[test]
fn batches() {
    let own = headers(&[("content-type", http::BATCH)]);
    let one = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let decode = |body: String| http::decode(&own, Bytes::from(body)).map(|own| own.len());
    assert_eq!(decode(format!("[{one},{one}]")), Ok(2));
    assert_eq!(decode("[]".to_owned()), Ok(0));
    assert!(decode(format!("[{one},{{}}]")).is_err());
    assert!(decode(format!("[{}]", vec![one; json::BATCH_EVENTS_MAX + 1].join(","))).is_err());
}

#[test]
fn headers_are_percent_encoded() {
    let mut event = Event::new("1", "/s", "t");
    event.set("ext", "Euro € \"100%\"".to_owned()).unwrap();
    let (headers, _) = http::encode_binary(&event).unwrap();
    assert_eq!(headers["ce-ext"], "Euro%20%E2%82%AC%20%22100%25%22");
    assert!(headers.get(CONTENT_TYPE).is_none());
}

fn any_event() -> impl Strategy<Value = Event> {
    let word = "[a-zA-Z0-9€ \"%/]{1,12}[a-z]";
    let data = prop_oneof![
        Just((None, None)),
        any::<Vec<u8>>()
            .prop_filter("data", |own| !own.is_empty())
            .prop_map(|own| (Some("application/x"), Some(own))),
        "[a-z0-9]{1,9}".prop_map(|own| (None, Some(format!("{{\"a\":\"{own}\"}}").into_bytes()))),
        "\\PC{1,20}".prop_map(|own| (Some("text/plain"), Some(own.into_bytes()))),
    ];
    let extensions = prop::collection::btree_map("x[a-z0-9]{1,8}", word, 0..5);
    (any::<bool>(), word, word, prop::option::of(word), extensions, data).prop_map(
        |(old, id, kind, subject, extensions, (content_type, data))| Event {
            version: if old { SpecVersion::V03 } else { SpecVersion::V1 },
            id,
            kind,
            subject,
            extensions,
            content_type: content_type.map(str::to_owned),
            base64: false,
            data: data.map(Bytes::from),
            schema: Some("http://x/y".to_owned()),
            time: Some("2018-04-26T14:48:09.5Z".to_owned()),
            source: "/s".to_owned(),
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read(event in any_event()) {
        let (headers, body) = http::encode_binary(&event).unwrap();
        prop_assert_eq!(&http::decode(&headers, body).unwrap()[0], &event);

        let (headers, body) = http::encode_structured(&event);
        let mut read = http::decode(&headers, body).unwrap().remove(0);
        read.base64 = false;
        prop_assert_eq!(&read, &event);

        let kept = record::Kept { event, headers: vec![("x-b3-x".to_owned(), "1".to_owned())] };
        prop_assert_eq!(record::decode(Bytes::from(record::encode(&kept))).unwrap(), kept);
    }

    #[test]
    fn no_record_is_too_broken(bytes in any::<Vec<u8>>(), at in 0usize..200, flip in any::<u8>()) {
        let _ = record::decode(Bytes::from(bytes));
        let kept = record::Kept { event: Event::new("1", "/s", "t"), headers: Vec::new() };
        let mut own = record::encode(&kept);
        let at = at % own.len();
        own[at] ^= flip;
        let _ = record::decode(Bytes::from(own.clone()));
        own.truncate(at);
        prop_assert!(record::decode(Bytes::from(own)).is_err());
    }
}
