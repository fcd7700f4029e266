//! What fuzzing reaches of this crate's insides.

use crate::dns::answer::{Endpoint, Port, Service, ServiceKind, Source, Zone};
use crate::dns::server::reply_to;
use hickory_proto::op::{Message, ResponseCode};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

struct Fixed;

fn ports() -> Vec<Port> {
    vec![Port { name: "http".into(), protocol: "tcp".into(), port: 80 }]
}

impl Source for Fixed {
    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == "default"
    }
    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        let kind = match (namespace, name) {
            ("default", "web") => ServiceKind::Headless,
            ("default", "alias") => ServiceKind::External("example.com".to_owned()),
            _ => return None,
        };
        Some(Service { kind, ports: ports() })
    }
    fn endpoints(&self, _: &str, _: &str) -> Vec<Endpoint> {
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        vec![Endpoint { address, hostname: Some("one".to_owned()), ports: ports() }]
    }
    fn names_of(&self, _: IpAddr) -> Vec<String> {
        vec!["web.default".to_owned()]
    }
}

/// A message as a client sends it, and the answer to it.
pub fn dns(bytes: &[u8]) {
    static ZONE: OnceLock<Option<Zone>> = OnceLock::new();
    let Ok(query) = Message::from_vec(bytes) else { return };
    let mut reply = reply_to(&query, ResponseCode::NoError);
    let Some(zone) = ZONE.get_or_init(|| Zone::new("cluster.local").ok()) else { return };
    for question in &query.queries {
        if let Some(answer) = zone.answer(question.name(), question.query_type(), &Fixed, 1) {
            reply.answers.extend(answer.answers);
            reply.additionals.extend(answer.additionals);
            reply.authorities.extend(answer.authorities);
        }
    }
    if let Ok(bytes) = reply.to_vec() {
        assert!(Message::from_vec(&bytes).is_ok(), "an answer of ours cannot be read");
    }
}
