//! What a name has. Pure. The shapes are those of the Kubernetes DNS specification, version 1.1, and CoreDNS's
//! `kubernetes` plugin with `pods insecure`.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long an answer may be kept, in seconds. CoreDNS's default.
const TTL_SECONDS: u32 = 5;
/// The version of the specification.
const SCHEMA_VERSION: &str = "1.1.0";
/// Weight of SRV records is shared among them.
const SRV_WEIGHT_TOTAL: usize = 100;

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty where it has no name.
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Number.
    pub port: u16,
}

/// What a service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Its own addresses.
    ClusterIp(Vec<IpAddr>),
    /// Those of its endpoints.
    Headless,
    /// Another name.
    External(String),
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What its name stands for.
    pub kind: ServiceKind,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// An endpoint of a service that may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address.
    pub address: IpAddr,
    /// The host name that its pod asked for.
    pub hostname: Option<String>,
    /// Ports.
    pub ports: Vec<Port>,
}

impl Endpoint {
    /// The label of its own name: its host name, else its address with dashes.
    fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| self.address.to_string().replace(['.', ':'], "-"))
    }
}

/// Where the facts come from.
pub trait Source {
    /// Whether the namespace exists.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// The service.
    fn service(&self, namespace: &str, name: &str) -> Option<Service>;
    /// Its endpoints that may be told: ready ones, or all where the service publishes not ready addresses.
    fn endpoints(&self, namespace: &str, name: &str) -> Vec<Endpoint>;
    /// Names relative to `svc` that an address has: `name.namespace` of a service, `label.name.namespace` of an endpoint.
    fn names_of(&self, address: IpAddr) -> Vec<String>;
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// What was asked for.
    pub answers: Vec<Record>,
    /// Addresses of the targets.
    pub additionals: Vec<Record>,
    /// The start of authority where there is nothing to tell.
    pub authorities: Vec<Record>,
    /// The name that the answer points to and that has to be asked for too.
    pub follow: Option<Name>,
}

/// The zone, and what it is made of.
#[derive(Clone, Debug)]
pub struct Zone {
    /// Such as `cluster.local.`.
    pub domain: Name,
}

/// What a name in the zone is.
enum Found {
    /// These records, of any type.
    Records { records: Vec<Record>, additionals: Vec<Record> },
    /// The name exists and has nothing itself.
    Empty,
    /// There is no such name.
    Nothing,
}

fn records(records: Vec<Record>) -> Found {
    Found::Records { records, additionals: Vec::new() }
}

impl Zone {
    /// From a domain such as `cluster.local`.
    ///
    /// # Errors
    /// It is no domain name.
    pub fn new(domain: &str) -> Result<Self, hickory_proto::ProtoError> {
        let mut domain = Name::from_ascii(domain)?;
        domain.set_fqdn(true);
        Ok(Self { domain: domain.to_lowercase() })
    }

    /// The answer for a name, or `None` where the name is not this zone's to answer. `serial` counts changes.
    pub fn answer(&self, name: &Name, kind: RecordType, source: &dyn Source, serial: u32) -> Option<Answer> {
        let found = match self.domain.zone_of(&name.to_lowercase()) {
            true => self.find(name, source),
            false => self.reverse(name, source)?,
        };
        Some(self.shape(found, kind, serial))
    }

    fn shape(&self, found: Found, kind: RecordType, serial: u32) -> Answer {
        let mut answer = Answer {
            code: ResponseCode::NoError,
            answers: Vec::new(),
            additionals: Vec::new(),
            authorities: Vec::new(),
            follow: None,
        };
        match found {
            Found::Nothing => answer.code = ResponseCode::NXDomain,
            Found::Empty => {}
            Found::Records { records, additionals } => {
                let wanted = |record: &Record| {
                    kind == RecordType::ANY
                        || record.record_type() == kind
                        || record.record_type() == RecordType::CNAME
                };
                answer.answers = records.into_iter().filter(wanted).collect();
                if kind == RecordType::SRV {
                    answer.additionals = additionals;
                }
                if kind != RecordType::CNAME
                    && let Some(RData::CNAME(target)) = answer.answers.first().map(|record| &record.data)
                {
                    answer.follow = Some(target.0.clone());
                }
            }
        }
        if answer.answers.is_empty() {
            answer.authorities.push(self.soa(serial));
        }
        answer
    }

    fn below(&self, labels: &str) -> Option<Name> {
        let mut name = Name::from_ascii(labels).ok()?.append_domain(&self.domain).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    fn soa(&self, serial: u32) -> Record {
        let primary = self.below("ns.dns").unwrap_or_default();
        let contact = self.below("hostmaster").unwrap_or_default();
        let soa = SOA::new(primary, contact, serial, 7200, 1800, 86_400, TTL_SECONDS);
        Record::from_rdata(self.domain.clone(), TTL_SECONDS, RData::SOA(soa))
    }

    /// What a name below the domain is.
    fn find(&self, name: &Name, source: &dyn Source) -> Found {
        let count = usize::from(name.num_labels().saturating_sub(self.domain.num_labels()));
        let labels: Vec<String> = name
            .iter()
            .take(count)
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => {
                let ns = NS(self.below("ns.dns").unwrap_or_default());
                records(vec![Record::from_rdata(name.clone(), TTL_SECONDS, RData::NS(ns)), self.soa(0)])
            }
            ["dns-version"] => {
                let text = RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()]));
                records(vec![Record::from_rdata(name.clone(), TTL_SECONDS, text)])
            }
            ["svc" | "pod"] => Found::Empty,
            [namespace, "svc" | "pod"] => match source.has_namespace(namespace) {
                true => Found::Empty,
                false => Found::Nothing,
            },
            [address, namespace, "pod"] => pod(name, address, namespace, source),
            [service, namespace, "svc"] => self.service(name, service, namespace, None, source),
            [port, protocol, service, namespace, "svc"]
                if port.starts_with('_') && protocol.starts_with('_') =>
            {
                self.service(name, service, namespace, Some((&port[1..], &protocol[1..])), source)
            }
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                match source.service(namespace, service) {
                    Some(_) => Found::Empty,
                    None => Found::Nothing,
                }
            }
            [label, service, namespace, "svc"] => endpoint(name, label, service, namespace, source),
            _ => Found::Nothing,
        }
    }

    fn service(
        &self,
        name: &Name,
        service: &str,
        namespace: &str,
        port: Option<(&str, &str)>,
        source: &dyn Source,
    ) -> Found {
        let Some(found) = source.service(namespace, service) else { return Found::Nothing };
        let own = format!("{service}.{namespace}.svc");
        match &found.kind {
            ServiceKind::External(target) => match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    records(vec![Record::from_rdata(name.clone(), TTL_SECONDS, RData::CNAME(CNAME(target)))])
                }
                Err(_) => Found::Empty,
            },
            ServiceKind::ClusterIp(addresses) => {
                let Some(target) = self.below(&own) else { return Found::Nothing };
                let ports: Vec<_> = found.ports.iter().filter(|own| is_asked(own, port)).collect();
                if ports.is_empty() && port.is_some() {
                    return Found::Nothing;
                }
                let targets: Vec<_> = ports.iter().map(|own| (target.clone(), own.port)).collect();
                let mut all = srv(name, &targets);
                let of_target = addresses_of(&target, addresses.iter().copied());
                if port.is_none() {
                    all.extend(addresses_of(name, addresses.iter().copied()));
                }
                Found::Records { records: all, additionals: of_target }
            }
            ServiceKind::Headless => self.headless(name, &own, service, namespace, port, source),
        }
    }

    fn headless(
        &self,
        name: &Name,
        own: &str,
        service: &str,
        namespace: &str,
        port: Option<(&str, &str)>,
        source: &dyn Source,
    ) -> Found {
        let endpoints = source.endpoints(namespace, service);
        let (mut targets, mut additionals) = (Vec::new(), Vec::new());
        for endpoint in &endpoints {
            let Some(target) = self.below(&format!("{}.{own}", endpoint.label())) else { continue };
            let ports = endpoint.ports.iter().filter(|own| is_asked(own, port));
            let before = targets.len();
            targets.extend(ports.map(|own| (target.clone(), own.port)));
            if targets.len() > before {
                additionals.extend(addresses_of(&target, [endpoint.address]));
            }
        }
        if endpoints.is_empty() || (port.is_some() && targets.is_empty()) {
            // A headless service without endpoints has no name, as in CoreDNS.
            return Found::Nothing;
        }
        let mut all = srv(name, &targets);
        if port.is_none() {
            let mut addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
            addresses.sort();
            addresses.dedup();
            all.extend(addresses_of(name, addresses));
        }
        Found::Records { records: all, additionals }
    }

    /// Names of addresses: `None` for reverse names that nothing of the cluster has (the node's servers may know them).
    fn reverse(&self, name: &Name, source: &dyn Source) -> Option<Found> {
        let address = reverse_address(name)?;
        let names = source.names_of(address);
        let pointers = names.iter().filter_map(|own| {
            let target = self.below(&format!("{own}.svc"))?;
            Some(Record::from_rdata(name.clone(), TTL_SECONDS, RData::PTR(PTR(target))))
        });
        let pointers: Vec<_> = pointers.collect();
        (!pointers.is_empty()).then(|| records(pointers))
    }
}

fn is_asked(own: &Port, port: Option<(&str, &str)>) -> bool {
    port.is_none_or(|(name, protocol)| own.name == name && own.protocol.eq_ignore_ascii_case(protocol))
}

fn addresses_of(name: &Name, addresses: impl IntoIterator<Item = IpAddr>) -> Vec<Record> {
    let data = |address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    addresses
        .into_iter()
        .map(|address| Record::from_rdata(name.clone(), TTL_SECONDS, data(address)))
        .collect()
}

fn srv(name: &Name, targets: &[(Name, u16)]) -> Vec<Record> {
    let weight = (SRV_WEIGHT_TOTAL / targets.len().max(1)).max(1) as u16;
    let record = |(target, port): &(Name, u16)| {
        let data = RData::SRV(SRV::new(0, weight, *port, target.clone()));
        Record::from_rdata(name.clone(), TTL_SECONDS, data)
    };
    targets.iter().map(record).collect()
}

/// `10-1-2-3.namespace.pod`: the address that the name says, without asking whether such a pod exists.
fn pod(name: &Name, label: &str, namespace: &str, source: &dyn Source) -> Found {
    if !source.has_namespace(namespace) {
        return Found::Nothing;
    }
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    match v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)) {
        Ok(address) => records(addresses_of(name, [address])),
        Err(_) => Found::Nothing,
    }
}

fn endpoint(name: &Name, label: &str, service: &str, namespace: &str, source: &dyn Source) -> Found {
    let is_headless = source.service(namespace, service).is_some_and(|own| own.kind == ServiceKind::Headless);
    if !is_headless {
        return Found::Nothing;
    }
    let endpoints = source.endpoints(namespace, service);
    let named: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.label() == label).collect();
    if named.is_empty() {
        return Found::Nothing;
    }
    let targets: Vec<_> =
        named.iter().flat_map(|own| own.ports.iter().map(|port| (name.clone(), port.port))).collect();
    let mut all = srv(name, &targets);
    let addresses = addresses_of(name, named.iter().map(|endpoint| endpoint.address));
    all.extend(addresses.clone());
    Found::Records { records: all, additionals: addresses }
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let (root, rest) = (labels.last()?, &labels[..labels.len() - 1]);
    if root != "arpa" {
        return None;
    }
    match rest.split_last()? {
        (zone, parts) if zone == "in-addr" && parts.len() == 4 => {
            let text: Vec<_> = parts.iter().rev().map(String::as_str).collect();
            text.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
        (zone, parts) if zone == "ip6" && parts.len() == 32 => {
            let mut value = 0_u128;
            for part in parts.iter().rev() {
                let digit = (part.len() == 1).then(|| u128::from_str_radix(part, 16).ok()).flatten()?;
                value = value << 4 | digit;
            }
            Some(IpAddr::V6(value.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Cluster;

    fn port(name: &str, port: u16) -> Port {
        Port { name: name.into(), protocol: "TCP".into(), port }
    }

    impl Source for Cluster {
        fn has_namespace(&self, namespace: &str) -> bool {
            namespace == "default"
        }
        fn service(&self, namespace: &str, name: &str) -> Option<Service> {
            let kind = match (namespace, name) {
                ("default", "web") => ServiceKind::ClusterIp(vec![IpAddr::from([10, 43, 0, 7])]),
                ("default", "db") => ServiceKind::Headless,
                ("default", "none") => ServiceKind::Headless,
                ("default", "out") => ServiceKind::External("example.com".into()),
                _ => return None,
            };
            Some(Service { kind, ports: vec![port("http", 80), port("tls", 443)] })
        }
        fn endpoints(&self, _: &str, name: &str) -> Vec<Endpoint> {
            let endpoint = |last, hostname: Option<&str>| Endpoint {
                address: IpAddr::from([10, 42, 0, last]),
                hostname: hostname.map(str::to_owned),
                ports: vec![port("http", 8080)],
            };
            if name == "db" { vec![endpoint(1, Some("db-0")), endpoint(2, None)] } else { Vec::new() }
        }
        fn names_of(&self, address: IpAddr) -> Vec<String> {
            if address == IpAddr::from([10, 43, 0, 7]) { vec!["web.default".into()] } else { Vec::new() }
        }
    }

    fn ask(name: &str, kind: RecordType) -> Option<Answer> {
        let mut name = Name::from_ascii(name).unwrap();
        name.set_fqdn(true);
        Zone::new("cluster.local").unwrap().answer(&name, kind, &Cluster, 1)
    }

    /// `expect`: the data of the answers, or the code where there are none.
    fn check(name: &str, kind: RecordType, expect: Result<&[&str], ResponseCode>) {
        let answer = ask(name, kind).unwrap();
        let data: Vec<_> = answer.answers.iter().map(|record| record.data.to_string()).collect();
        let found = if data.is_empty() { Err(answer.code) } else { Ok(data) };
        let expect = expect.map(|data| data.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expect, "{name} {kind}");
        assert_eq!(
            answer.answers.is_empty(),
            !answer.authorities.is_empty(),
            "{name}: a SOA where there is nothing"
        );
    }

    #[test]
    fn records_have_the_shapes_of_the_specification() {
        use RecordType as T;
        let none = Err(ResponseCode::NXDomain);
        let empty = Err(ResponseCode::NoError);
        for (name, kind, expect) in [
            ("web.default.svc.cluster.local", T::A, Ok(&["10.43.0.7"][..])),
            ("WEB.Default.svc.cluster.local", T::A, Ok(&["10.43.0.7"][..])),
            ("web.default.svc.cluster.local", T::AAAA, empty),
            ("web.other.svc.cluster.local", T::A, none),
            ("x.web.default.svc.cluster.local", T::A, none),
            (
                "_http._tcp.web.default.svc.cluster.local",
                T::SRV,
                Ok(&["0 100 80 web.default.svc.cluster.local."][..]),
            ),
            ("_nope._tcp.web.default.svc.cluster.local", T::SRV, none),
            ("db.default.svc.cluster.local", T::A, Ok(&["10.42.0.1", "10.42.0.2"][..])),
            ("db-0.db.default.svc.cluster.local", T::A, Ok(&["10.42.0.1"][..])),
            ("10-42-0-2.db.default.svc.cluster.local", T::A, Ok(&["10.42.0.2"][..])),
            (
                "_http._tcp.db.default.svc.cluster.local",
                T::SRV,
                Ok(&[
                    "0 50 8080 db-0.db.default.svc.cluster.local.",
                    "0 50 8080 10-42-0-2.db.default.svc.cluster.local.",
                ][..]),
            ),
            ("none.default.svc.cluster.local", T::A, none),
            ("out.default.svc.cluster.local", T::A, Ok(&["example.com."][..])),
            ("10-1-2-3.default.pod.cluster.local", T::A, Ok(&["10.1.2.3"][..])),
            ("10-1-2-3.other.pod.cluster.local", T::A, none),
            ("nonsense.default.pod.cluster.local", T::A, none),
            ("default.svc.cluster.local", T::A, empty),
            ("svc.cluster.local", T::A, empty),
            ("dns-version.cluster.local", T::TXT, Ok(&["1.1.0"][..])),
            ("7.0.43.10.in-addr.arpa", T::PTR, Ok(&["web.default.svc.cluster.local."][..])),
        ] {
            check(name, kind, expect);
        }
    }

    #[test]
    fn an_external_name_is_followed_and_other_zones_are_not_ours() {
        let answer = ask("out.default.svc.cluster.local", RecordType::A).unwrap();
        assert_eq!(answer.follow.unwrap().to_string(), "example.com.");
        assert!(ask("example.com", RecordType::A).is_none());
        assert!(ask("9.9.9.9.in-addr.arpa", RecordType::PTR).is_none());
    }

    #[test]
    fn an_srv_answer_brings_the_addresses_of_its_targets() {
        let answer = ask("_http._tcp.db.default.svc.cluster.local", RecordType::SRV).unwrap();
        assert_eq!(answer.additionals.len(), 2);
    }

    #[test]
    fn ipv6_reverse_names_are_read() {
        let name = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa";
        assert_eq!(reverse_address(&Name::from_ascii(name).unwrap()), "4321:0:1:2:3:4:567:89ab".parse().ok());
    }
}
