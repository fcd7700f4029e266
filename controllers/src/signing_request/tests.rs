use super::authority::{Authority, life};
use super::plan::{expires_at, is_to_be_signed, is_undecided};
use super::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Request, RequestError, fault, parse};
use api::Timestamp;
use jiff::SignedDuration;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

/// A request with two groups and four kinds of names, for a key on P-384 but signed with SHA-256, made by openssl.
const OF_OPENSSL: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIIBbTCB9QIBADA0MQ4wDAYDVQQKDAVmaXJzdDEPMA0GA1UECgwGc2Vjb25kMREw
DwYDVQQDDAhzb21lYm9keTB2MBAGByqGSM49AgEGBSuBBAAiA2IABPUndjoakvQ9
ibWEtUoaPNZwsdmvAjiQBqOR/QyH14iExcEUbE2rYBw5YJcugFEXYm+W3iauzMwG
5U//Y6zFxMxHDw0JSUz4RZSAaRUh3nSqRCmhEli7fB0WpwSJlVAmjKBCMEAGCSqG
SIb3DQEJDjEzMDEwLwYDVR0RBCgwJoIJYS5leGFtcGxlhwQKAAABgQV4QHkueoYM
c3BpZmZlOi8vYS9iMAoGCCqGSM49BAMCA2cAMGQCMD4uyXvNg9Csmunj/WNDYvzI
zKID6OBJg31FqRI6Ckm9BjG75gTYtEd8l2CzyEskgQIwNGTsnGQtBm7dJ6fxaCXl
mG70oyenMnVrQF2oKozw/9Y3elqK/UVhY+uxBIeDZASn
-----END CERTIFICATE REQUEST-----
";

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_request_is_read() {
    let request = parse(OF_OPENSSL.as_bytes()).unwrap();
    assert_eq!(request.common_name, "somebody");
    assert_eq!(request.organizations, ["first", "second"]);
    assert_eq!((request.dns_names, request.emails), (strings(&["a.example"]), strings(&["x@y.z"])));
    assert_eq!((request.uris, request.addresses), (strings(&["spiffe://a/b"]), vec![vec![10, 0, 0, 1]]));
}

#[test]
fn what_is_no_request_is_refused() {
    let check = |text: &str, expect: &str| {
        assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expect);
    };
    check("nonsense", &RequestError::NotPem.to_string());
    check(&OF_OPENSSL.replace("CERTIFICATE REQUEST", "CERTIFICATE"), &RequestError::NotPem.to_string());
    // Another name under the same signature.
    let body: String = OF_OPENSSL.lines().filter(|line| !line.starts_with('-')).collect();
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut der = base64.decode(body).unwrap();
    let name = der.windows(8).position(|window| window == b"somebody").unwrap();
    der[name] = b'S';
    let forged = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64.encode(&der)
    );
    check(&forged, &RequestError::Signature.to_string());
    let cut = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64.encode(&der[..40])
    );
    check(&cut, &RequestError::Malformed.to_string());
}

#[test]
fn who_gets_what_from_which_signer() {
    let node = || Request {
        common_name: "system:node:n".to_owned(),
        organizations: strings(&["system:nodes"]),
        ..Request::default()
    };
    let serving = || Request { dns_names: strings(&["n"]), ..node() };
    let check = |signer: &str, request: Request, usages: &[&str], expect: Option<&str>| {
        assert_eq!(fault(&request, &strings(usages), signer).as_deref(), expect, "{signer} {usages:?}");
    };
    let client = &["digital signature", "key encipherment", "client auth"];
    let server = &["key encipherment", "digital signature", "server auth"];
    check(KUBELET_CLIENT, node(), client, None);
    check(
        KUBELET_CLIENT,
        node(),
        &client[..1],
        Some("usages did not match [client auth digital signature key encipherment]"),
    );
    check(KUBELET_CLIENT, node(), &["client auth", "digital signature"], None);
    check(KUBELET_CLIENT, serving(), client, Some("DNS subjectAltNames are not allowed"));
    let other = Request { organizations: strings(&["system:masters"]), ..node() };
    check(KUBELET_CLIENT, other, client, Some("subject organization is not system:nodes"));
    let other = Request { common_name: "n".to_owned(), ..node() };
    check(KUBELET_CLIENT, other, client, Some("subject common name does not begin with system:node:"));
    check(KUBELET_SERVING, serving(), server, None);
    check(KUBELET_SERVING, node(), server, Some("DNS or IP subjectAltName is required"));
    let other = Request { uris: strings(&["a:b"]), ..serving() };
    check(KUBELET_SERVING, other, server, Some("URI subjectAltNames are not allowed"));
    check(CLIENT, Request::default(), client, None);
    check(
        CLIENT,
        Request::default(),
        &["server auth"],
        Some("invalid usage for client certificate: server auth"),
    );
    let missing = "missing required usage for client certificate: client auth";
    check(CLIENT, Request::default(), &client[..2], Some(missing));
    check(LEGACY, Request::default(), &["any"], None);
}

#[test]
fn how_long_a_certificate_lives() {
    let check = |asked: Option<i32>, expect: i64| assert_eq!(life(asked), SignedDuration::from_secs(expect));
    check(None, 365 * 86_400);
    check(Some(3600), 3600);
    check(Some(1), 600);
    check(Some(i32::MAX), 365 * 86_400);
}

fn authority() -> (Authority, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (Authority::new(&certificate.pem(), &key.serialize_pem()).unwrap(), certificate.der().to_vec())
}

#[test]
fn a_certificate_says_what_the_request_asked_for() {
    let (authority, ca) = authority();
    let ca = X509Certificate::from_der(&ca).unwrap().1;
    let request = parse(OF_OPENSSL.as_bytes()).unwrap();
    let now = at(1_800_000_000);
    let usages = strings(&["digital signature", "client auth", "server auth"]);
    let signed = authority.sign(&request, &usages, SignedDuration::from_hours(1), [0xff; 16], now).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(&signed).unwrap();
    let (rest, certificate) = X509Certificate::from_der(&block.contents).unwrap();
    assert!(rest.is_empty());
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(certificate.issuer().to_string(), "CN=ca");
    assert_eq!(certificate.subject().to_string(), "O=first, O=second, CN=somebody");
    assert_eq!(certificate.public_key().raw, request.public_key);
    assert_eq!(certificate.raw_serial(), [&[0][..], &[0xff; 16]].concat());
    let validity = certificate.validity();
    assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
    assert_eq!(validity.not_after.timestamp(), now.as_second() + 3600);
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_encipherment() && !usage.key_cert_sign());
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && purposes.server_auth && !purposes.any);
    assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert!(!names.critical);
    let expect = [
        GeneralName::RFC822Name("x@y.z"),
        GeneralName::DNSName("a.example"),
        GeneralName::URI("spiffe://a/b"),
        GeneralName::IPAddress(&[10, 0, 0, 1]),
    ];
    assert_eq!(names.value.general_names, expect);
    let id = |certificate: &X509Certificate<'_>| {
        certificate.extensions().iter().find_map(|own| match own.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(own) => {
                own.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
    };
    assert!(id(&certificate).is_some() && id(&certificate) == id(&ca));
}

#[test]
fn nothing_outlives_its_authority() {
    let (authority, ca) = authority();
    let end = X509Certificate::from_der(&ca).unwrap().1.validity().not_after.timestamp();
    let request = parse(OF_OPENSSL.as_bytes()).unwrap();
    let sign = |now: i64| authority.sign(&request, &[], life(None), [1; 16], at(now));
    let signed = sign(end - 60).unwrap();
    let (_, block) = x509_parser::pem::parse_x509_pem(&signed).unwrap();
    assert_eq!(X509Certificate::from_der(&block.contents).unwrap().1.validity().not_after.timestamp(), end);
    assert!(sign(end).is_err());
}

fn csr(conditions: &[&str], certificate: Option<&str>) -> CertificateSigningRequest {
    use base64::Engine as _;
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastUpdateTime": at(1000).to_string()}))
        .collect();
    let certificate = certificate.map(|text| base64::engine::general_purpose::STANDARD.encode(text));
    serde_json::from_value(json!({"metadata": {"name": "r", "creationTimestamp": at(500).to_string()},
        "spec": {"request": "", "signerName": CLIENT},
        "status": {"conditions": conditions, "certificate": certificate}}))
    .unwrap()
}

#[test]
fn where_a_request_stands() {
    let check = |conditions: &[&str], certificate: Option<&str>, expect: (bool, bool)| {
        let own = csr(conditions, certificate);
        assert_eq!((is_undecided(&own), is_to_be_signed(&own)), expect, "{conditions:?}");
    };
    check(&[], None, (true, false));
    check(&["Approved"], None, (false, true));
    check(&["Approved"], Some("C"), (false, false));
    check(&["Approved", "Failed"], None, (false, false));
    check(&["Denied"], None, (false, false));
    check(&["Approved", "Denied"], None, (false, false));
}

#[test]
fn how_long_a_request_is_kept() {
    let check = |conditions: &[&str], certificate: Option<&str>, expect: i64| {
        assert_eq!(expires_at(&csr(conditions, certificate)), Some(at(expect)), "{conditions:?}");
    };
    check(&[], None, 500 + 86_400);
    check(&["Approved"], None, 1000 + 86_400);
    check(&["Approved"], Some("C"), 1000 + 3600);
    check(&["Denied"], None, 1000 + 3600);
    check(&["Approved", "Failed"], None, 1000 + 3600);
    let (authority, _) = authority();
    let request = parse(OF_OPENSSL.as_bytes()).unwrap();
    let short = authority.sign(&request, &[], SignedDuration::from_mins(10), [1; 16], at(900)).unwrap();
    check(&["Approved"], Some(std::str::from_utf8(&short).unwrap()), 900 + 600);
}
