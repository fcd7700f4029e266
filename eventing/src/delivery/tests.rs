use super::*;

fn kept() -> Kept {
    let mut event = Event::new("1", "/s", "t");
    event.data = Some(Bytes::from_static(b"hi"));
    event.content_type = Some("text/plain".to_owned());
    Kept { event, headers: vec![("x-b3-traceid".to_owned(), "7".to_owned())] }
}

#[test]
fn requests_carry_events() {
    let own = kept();
    let parcel = Parcel { kept: &own, namespace: "ns", format: Format::Binary, wants_reply: true };
    let made = request(parcel, "http://sink.ns.svc/path?x=1").unwrap();
    assert_eq!(
        (made.method(), made.uri().to_string().as_str()),
        (&Method::POST, "http://sink.ns.svc/path?x=1")
    );
    let wanted = [
        ("prefer", "reply"),
        ("kn-namespace", "ns"),
        ("x-b3-traceid", "7"),
        ("ce-id", "1"),
        ("content-type", "text/plain"),
    ];
    for (name, value) in wanted {
        assert_eq!(made.headers()[name], value);
    }
    assert_eq!(made.body(), "hi");
    let parcel = Parcel { format: Format::Json, wants_reply: false, ..parcel };
    let made = request(parcel, "sink.ns.svc").unwrap();
    assert_eq!(made.uri().to_string(), "http://sink.ns.svc/");
    assert_eq!(made.headers()["content-type"], binding::STRUCTURED);
    assert!(made.headers().get("prefer").is_none());
    assert!(request(parcel, "http:///x").is_err());
}

#[test]
fn answers_are_judged() {
    let answer = |status: u16, headers: &[(&'static str, &'static str)], body: &'static str| {
        let mut answer = Response::new(Bytes::from_static(body.as_bytes()));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            answer.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        answer
    };
    const EVENT: &[(&str, &str)] = &[
        ("ce-specversion", "1.0"),
        ("ce-id", "2"),
        ("ce-source", "/r"),
        ("ce-type", "r"),
        ("knative-x", "y"),
        ("other", "z"),
    ];
    const BROKEN: &[(&str, &str)] = &[("ce-specversion", "1.0"), ("ce-id", "2")];
    let code = |answer, replies| judge(answer, replies).map_err(|own| (own.code, own.again));
    let reply = |answer| match judge(answer, Replies::EventsOnly) {
        Ok(Answer::Reply(own)) => Some((own.event.id, own.headers)),
        _ => None,
    };
    let wanted = ("2".to_owned(), vec![("knative-x".to_owned(), "y".to_owned())]);
    assert_eq!(reply(answer(200, EVENT, "data")), Some(wanted));
    for replies in [Replies::EventsOnly, Replies::Anything, Replies::None] {
        assert_eq!(code(answer(200, &[], ""), replies), Ok(Answer::Done));
        assert_eq!(code(answer(202, EVENT, "data"), replies), Ok(Answer::Done), "accepted is no answer");
        assert_eq!(code(answer(202, &[], "text"), replies), Ok(Answer::Done));
        assert_eq!(code(answer(302, &[("location", "http://x/")], ""), replies), Err((302, false)));
        assert_eq!(code(answer(400, &[], ""), replies), Err((400, false)));
        assert_eq!(code(answer(404, &[], ""), replies), Err((404, true)));
        assert_eq!(code(answer(503, EVENT, ""), replies), Err((503, true)));
    }
    assert_eq!(code(answer(200, &[], "text"), Replies::EventsOnly), Err((502, true)));
    assert_eq!(code(answer(200, &[], "text"), Replies::Anything), Ok(Answer::Done));
    assert_eq!(code(answer(200, BROKEN, ""), Replies::Anything), Err((502, true)));
    assert_eq!(code(answer(200, BROKEN, ""), Replies::None), Ok(Answer::Done));
    let busy = judge(answer(503, &[("retry-after", "5")], ""), Replies::None).unwrap_err();
    assert_eq!(busy.retry_after.as_deref(), Some("5"));
    let other = judge(answer(500, &[("retry-after", "5")], ""), Replies::None).unwrap_err();
    assert_eq!(other.retry_after, None);
}

#[test]
fn dead_letters_say_why() {
    let mut own = kept().event;
    let failure = Failure { code: 500, data: Bytes::from(vec![b'x'; 5000]), again: true, retry_after: None };
    mark_dead(&mut own, "http://sink/", &failure);
    assert_eq!(own.extensions["knativeerrordest"], "http://sink/");
    assert_eq!(own.extensions["knativeerrorcode"], "500");
    assert_eq!(own.extensions["knativeerrordata"].len(), ERROR_DATA_BYTES_MAX);
    mark_dead(&mut own, "http://sink/", &Failure { data: Bytes::from_static(b"no"), ..failure });
    assert_eq!(own.extensions["knativeerrordata"], "bm8=");
}

#[test]
fn few_headers_travel() {
    let mut headers = HeaderMap::new();
    for name in
        ["x-request-id", "knative-foo", "x-b3-spanid", "traceparent", "authorization", "ce-id", "host"]
    {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
    }
    let mut names: Vec<_> = passed_headers(&headers).into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["knative-foo", "traceparent", "x-b3-spanid", "x-request-id"]);
}

/// A server that closes its first connections after so many requests, and answers all others.
async fn closing(mut closes: usize) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nhi") {
                assert!(stream.read_buf(&mut request).await.unwrap() > 0);
            }
            if closes > 0 {
                closes -= 1;
                continue;
            }
            let answer = b"HTTP/1.1 302 Found\r\nlocation: http://other/\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
            stream.write_all(answer).await.unwrap();
        }
    });
    address
}

struct At(std::net::SocketAddr);

impl Resolve for At {
    fn resolve(
        &self,
        _: &str,
        _: u16,
    ) -> futures::future::BoxFuture<'static, std::io::Result<std::net::SocketAddr>> {
        Box::pin(std::future::ready(Ok(self.0)))
    }
}

#[tokio::test]
async fn closed_connections_are_no_failures_and_redirects_are_not_followed() {
    let own = kept();
    let parcel = Parcel { kept: &own, namespace: "ns", format: Format::Binary, wants_reply: true };
    let post = async |closes, uri: &str| {
        let pool = Pool::new(std::sync::Arc::new(At(closing(closes).await)));
        pool.post(request(parcel, uri).unwrap()).await
    };
    for closes in 0..=pool::STALE_MAX {
        let answer = post(closes, "http://sink/").await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (302, &b"hi"[..]), "{closes}");
    }
    assert!(matches!(post(pool::STALE_MAX + 1, "http://sink/").await, Err(PostError::Transport { .. })));
    assert!(matches!(post(0, "https://sink/").await, Err(PostError::Scheme { .. })));
}
