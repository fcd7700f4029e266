//! The files that every pod gets: `/etc/hosts`, `/etc/resolv.conf`, and its host name. Pure.
//! Upstream: `pkg/kubelet` `managedHostsFileContent`, `GeneratePodHostNameAndDomain`, `pkg/kubelet/network/dns`.

use crate::spec::PodDef;
use k8s_openapi::api::core::v1::HostAlias;
use std::fmt::Write;

/// Longer host names do not fit the kernel's.
const HOSTNAME_BYTES_MAX: usize = 63;
/// Upstream's bounds for what resolvers take.
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_BYTES_MAX: usize = 2048;
const DOMAIN_BYTES_MAX: usize = 253;

/// The pod's host name and, where it has a subdomain, its domain.
pub(crate) fn hostname(def: &PodDef, cluster_domain: &str) -> (String, String) {
    let spec = def.spec();
    let set = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(name) = set(&spec.hostname_override) {
        return (truncate(&name), String::new());
    }
    let name = set(&spec.hostname).unwrap_or_else(|| def.name().to_owned());
    let domain = set(&spec.subdomain).map(|sub| format!("{sub}.{}.svc.{cluster_domain}", def.namespace()));
    (truncate(&name), domain.unwrap_or_default())
}

fn truncate(name: &str) -> String {
    if name.len() <= HOSTNAME_BYTES_MAX {
        return name.to_owned();
    }
    let cut: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// What `uname -n` shows in the pod. `None` where it is the machine's own.
pub(crate) fn node_name_in_pod(def: &PodDef, cluster_domain: &str) -> Option<String> {
    let own = def.spec().hostname_override.is_some();
    if def.host_network() && !own {
        return None;
    }
    let (name, domain) = hostname(def, cluster_domain);
    let qualified = def.spec().set_hostname_as_fqdn.unwrap_or(false) && !domain.is_empty();
    Some(if qualified { format!("{name}.{domain}") } else { name })
}

/// `/etc/hosts` of a pod with its own network.
pub(crate) fn hosts(def: &PodDef, addresses: &[String], cluster_domain: &str) -> String {
    let (name, domain) = hostname(def, cluster_domain);
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    for address in addresses {
        let _ = match domain.as_str() {
            "" => writeln!(text, "{address}\t{name}"),
            domain => writeln!(text, "{address}\t{name}.{domain}\t{name}"),
        };
    }
    add_aliases(def.spec().host_aliases.as_deref().unwrap_or_default(), &mut text);
    text
}

/// `/etc/hosts` of a pod on the machine's network: the machine's, and the pod's own aliases.
pub(crate) fn host_network_hosts(def: &PodDef, machine: &str) -> String {
    let mut text = format!("# Kubernetes-managed hosts file (host network).\n{machine}");
    add_aliases(def.spec().host_aliases.as_deref().unwrap_or_default(), &mut text);
    text
}

fn add_aliases(aliases: &[HostAlias], text: &mut String) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
}

/// What a resolver is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Domains that are tried.
    pub searches: Vec<String>,
    /// `ndots:5`, …
    pub options: Vec<String>,
}

impl Dns {
    /// Reads a `resolv.conf`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut dns = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
                Some("search") => {
                    let domains = words.filter(|domain| *domain != ".");
                    dns.searches = domains.map(|domain| domain.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => dns.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        dns
    }

    /// Writes a `resolv.conf`.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            let _ = writeln!(text, "search {}", self.searches.join(" "));
        }
        for server in &self.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if !self.options.is_empty() {
            let _ = writeln!(text, "options {}", self.options.join(" "));
        }
        text
    }
}

/// What the cluster's resolver is.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterDns {
    /// Its addresses; none where the cluster has no resolver.
    pub servers: Vec<String>,
    /// `cluster.local`.
    pub domain: String,
}

/// What the pod's resolver is told, by its policy. `machine` is the machine's `resolv.conf`.
pub(crate) fn dns(def: &PodDef, cluster: &ClusterDns, machine: &Dns) -> Dns {
    let policy = def.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let in_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !def.host_network(),
        _ => false,
    };
    let mut dns = match policy {
        "None" => Dns::default(),
        _ if in_cluster && !cluster.servers.is_empty() => {
            let domain = &cluster.domain;
            let own = [format!("{}.svc.{domain}", def.namespace()), format!("svc.{domain}"), domain.clone()];
            let own = own.into_iter().filter(|_| !domain.is_empty());
            Dns {
                servers: cluster.servers.clone(),
                searches: unique(own.chain(machine.searches.iter().cloned())),
                options: vec!["ndots:5".to_owned()],
            }
        }
        _ => machine.clone(),
    };
    if let Some(config) = &def.spec().dns_config {
        dns.servers = unique(dns.servers.into_iter().chain(config.nameservers.clone().unwrap_or_default()));
        dns.searches = unique(dns.searches.into_iter().chain(config.searches.clone().unwrap_or_default()));
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            dns.options.retain(|own| own.split(':').next() != Some(name));
            dns.options.push(match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.to_owned(),
            });
        }
    }
    fit(dns)
}

fn unique(list: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for item in list {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

fn fit(mut dns: Dns) -> Dns {
    dns.servers.truncate(NAMESERVERS_MAX);
    dns.searches.retain(|domain| domain.len() <= DOMAIN_BYTES_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_BYTES_MAX {
        dns.searches.pop();
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::pod;
    use serde_json::json;

    fn def(spec: serde_json::Value) -> PodDef {
        let mut spec = spec;
        spec["containers"] = json!([]);
        pod(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}))
    }

    #[test]
    fn host_names() {
        let check = |spec: serde_json::Value, expect: (&str, &str), shown: Option<&str>| {
            let def = def(spec);
            assert_eq!(hostname(&def, "c.l"), (expect.0.to_owned(), expect.1.to_owned()));
            assert_eq!(node_name_in_pod(&def, "c.l").as_deref(), shown);
        };
        check(json!({}), ("p", ""), Some("p"));
        check(json!({"hostname": "h", "subdomain": "s"}), ("h", "s.ns.svc.c.l"), Some("h"));
        check(
            json!({"hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
            ("h", "s.ns.svc.c.l"),
            Some("h.s.ns.svc.c.l"),
        );
        check(json!({"hostNetwork": true}), ("p", ""), None);
        check(json!({"hostnameOverride": "o.x"}), ("o.x", ""), Some("o.x"));
    }

    #[test]
    fn hosts_files() {
        let def = def(json!({"subdomain": "s", "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts(&def, &["10.0.0.1".to_owned()], "c.l");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
        assert!(text.contains("10.0.0.1\tp.s.ns.svc.c.l\tp\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn resolvers_by_policy() {
        let machine = Dns::parse("# c\nnameserver 9.9.9.9\nsearch corp.example.\noptions timeout:1\n");
        let cluster = ClusterDns { servers: vec!["10.96.0.10".into()], domain: "c.l".into() };
        let check = |spec: serde_json::Value, expect: &str| {
            assert_eq!(dns(&def(spec.clone()), &cluster, &machine).to_text(), expect, "{spec}")
        };
        let first = "search ns.svc.c.l svc.c.l c.l corp.example\nnameserver 10.96.0.10\noptions ndots:5\n";
        let default = "search corp.example\nnameserver 9.9.9.9\noptions timeout:1\n";
        check(json!({}), first);
        check(json!({"dnsPolicy": "Default"}), default);
        check(json!({"hostNetwork": true}), default);
        check(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), first);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            "search x\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
        );
        check(
            json!({"dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}}),
            "search ns.svc.c.l svc.c.l c.l corp.example\nnameserver 10.96.0.10\noptions ndots:1\n",
        );
    }
}
