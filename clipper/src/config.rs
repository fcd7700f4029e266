//! The settings of a node, from flags and the `--config` file (YAML, the same names). Flags win.

use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Flags of `up`, `server` and `agent`. Every one is also a key of the `--config` file.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Flags {
    /// Settings file (YAML, the same names as the flags).
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Everything the process keeps lies below it [default: /var/lib/clipper].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of the node [default: the host name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Address of the node [default: the address of the default route, else the first global one].
    #[arg(long, value_name = "ADDRESS")]
    pub node_ip: Option<Ipv4Addr>,
    /// Port of the API server [default: 6443].
    #[arg(long, value_name = "PORT")]
    pub api_port: Option<u16>,
    /// Where objects are kept [default: embedded].
    #[arg(long, value_name = "embedded|etcd")]
    pub store: Option<String>,
    /// Addresses of etcd.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    #[serde(default)]
    pub etcd_endpoints: Vec<String>,
    /// Certificate of the authority of etcd's (PEM).
    #[arg(long, value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// Certificate that etcd is shown (PEM).
    #[arg(long, value_name = "FILE")]
    pub etcd_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE")]
    pub etcd_key: Option<PathBuf>,
    /// What the audit log records (YAML, Policy of audit.k8s.io/v1) [default: who changed what].
    #[arg(long, value_name = "FILE")]
    pub audit_policy: Option<PathBuf>,
    /// Addresses of pods [default: 10.42.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<String>,
    /// Addresses of services [default: 10.43.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<String>,
    /// Address of the cluster's DNS [default: 10.43.0.10].
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_dns: Option<Ipv4Addr>,
    /// Domain of the cluster [default: cluster.local].
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// Port of the gateway on the node's address [default: 80].
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Parts of the control plane that run elsewhere.
    #[arg(long, value_name = "scheduler|controllers", value_delimiter = ',')]
    #[serde(default)]
    pub without: Vec<String>,
    /// Format of the log [default: text].
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<String>,
    /// Says more in the log; twice, everything.
    #[arg(short = 'v', action = clap::ArgAction::Count)]
    #[serde(skip)]
    pub verbose: u8,
}

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In the embedded engine below the data directory.
    Embedded,
    /// In etcd.
    Etcd {
        /// Its addresses; at least one.
        endpoints: Vec<String>,
        /// Certificate of the authority of etcd's.
        ca: Option<PathBuf>,
        /// Our certificate and its key.
        identity: Option<(PathBuf, PathBuf)>,
    },
}

/// Parts of the control plane that do not run in this process, since others do their work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Without {
    /// No scheduler.
    pub scheduler: bool,
    /// No controllers.
    pub controllers: bool,
}

impl Without {
    fn parse(parts: &[String]) -> Result<Self> {
        let mut without = Self::default();
        for part in parts {
            match part.as_str() {
                "scheduler" => without.scheduler = true,
                "controllers" => without.controllers = true,
                other => bail!("--without {other:?}: allowed are scheduler and controllers"),
            }
        }
        Ok(without)
    }
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// First address.
    pub network: Ipv4Addr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// From `10.42.0.0/16`.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a network such as 10.42.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (Ipv4Addr, u8) =
            (address.parse().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
        if !(8..=28).contains(&prefix) {
            return Err(format!("{text:?}: the prefix must be from /8 to /28"));
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        if u32::from(address) & !mask != 0 {
            return Err(format!("{text:?} has bits set after its prefix"));
        }
        Ok(Self { network: address, prefix })
    }

    /// The `index`th address of the network.
    pub fn address(&self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + index)
    }

    /// Whether the address lies in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix));
        u32::from(address) & mask == u32::from(self.network)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The settings after defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything the process keeps lies below it.
    pub data_dir: PathBuf,
    /// Name of the node; a DNS subdomain.
    pub node_name: String,
    /// Address of the node, or `None` to find it.
    pub node_ip: Option<Ipv4Addr>,
    /// Port of the API server.
    pub api_port: u16,
    /// Where objects are kept.
    pub store: StoreChoice,
    /// What the audit log records, if not the usual.
    pub audit_policy: Option<PathBuf>,
    /// Addresses of pods.
    pub cluster_cidr: Cidr,
    /// Addresses of services.
    pub service_cidr: Cidr,
    /// Address of the cluster's DNS.
    pub cluster_dns: Ipv4Addr,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Port of the gateway on the node's address.
    pub http_port: u16,
    /// What others do.
    pub without: Without,
    /// Whether the log is JSON.
    pub log_json: bool,
    /// How often `-v` was given.
    pub verbose: u8,
}

impl Flags {
    /// Reads the `--config` file, fills what the flags leave open, then the defaults. `host_name` is the default node name.
    ///
    /// # Errors
    /// One line that names the flag, what was given and what is allowed.
    pub fn resolve(self, host_name: &str) -> Result<Config> {
        let file: Flags = match &self.config {
            None => Flags::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| anyhow::anyhow!("--config {}: {error}", path.display()))?;
                if text.trim().is_empty() {
                    Flags::default()
                } else {
                    serde_saphyr::from_str(&text)
                        .map_err(|error| anyhow::anyhow!("--config {}: {error}", path.display()))?
                }
            }
        };
        let cidr = |flag: &str, given: Option<String>, default: &str| {
            Cidr::parse(given.as_deref().unwrap_or(default)).map_err(|why| anyhow::anyhow!("--{flag}: {why}"))
        };
        let node_name = self.node_name.or(file.node_name).unwrap_or_else(|| host_name.to_lowercase());
        if !is_subdomain(&node_name) {
            bail!(
                "--node-name {node_name:?}: allowed are lower-case letters, digits, '-' and '.', up to 253 in all"
            );
        }
        let store = store_choice(StoreFlags {
            store: self.store.or(file.store),
            endpoints: if self.etcd_endpoints.is_empty() { file.etcd_endpoints } else { self.etcd_endpoints },
            ca: self.etcd_ca.or(file.etcd_ca),
            certificate: self.etcd_cert.or(file.etcd_cert),
            key: self.etcd_key.or(file.etcd_key),
        })?;
        let log_json = log_json(self.log_format.or(file.log_format).as_deref())?;
        let service_cidr = cidr("service-cidr", self.service_cidr.or(file.service_cidr), "10.43.0.0/16")?;
        let cluster_dns = self.cluster_dns.or(file.cluster_dns).unwrap_or_else(|| service_cidr.address(10));
        if !service_cidr.contains(cluster_dns) {
            bail!("--cluster-dns {cluster_dns}: must lie in --service-cidr {service_cidr}");
        }
        Ok(Config {
            data_dir: self.data_dir.or(file.data_dir).unwrap_or_else(|| PathBuf::from("/var/lib/clipper")),
            node_name,
            node_ip: self.node_ip.or(file.node_ip),
            api_port: self.api_port.or(file.api_port).unwrap_or(6443),
            store,
            audit_policy: self.audit_policy.or(file.audit_policy),
            cluster_cidr: cidr("cluster-cidr", self.cluster_cidr.or(file.cluster_cidr), "10.42.0.0/16")?,
            service_cidr,
            cluster_dns,
            cluster_domain: self
                .cluster_domain
                .or(file.cluster_domain)
                .unwrap_or_else(|| "cluster.local".into()),
            http_port: self.http_port.or(file.http_port).unwrap_or(80),
            without: Without::parse(if self.without.is_empty() { &file.without } else { &self.without })?,
            log_json,
            verbose: self.verbose,
        })
    }
}

/// Whether a `--log-format` asks for JSON.
///
/// # Errors
/// Says what is allowed.
pub fn log_json(format: Option<&str>) -> Result<bool> {
    match format.unwrap_or("text") {
        "text" => Ok(false),
        "json" => Ok(true),
        other => bail!("--log-format {other:?}: allowed are text and json"),
    }
}

struct StoreFlags {
    store: Option<String>,
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

fn store_choice(flags: StoreFlags) -> Result<StoreChoice> {
    let StoreFlags { store, endpoints, ca, certificate, key } = flags;
    let store = store.as_deref().unwrap_or("embedded");
    let of_etcd = [("ca", ca.is_some()), ("cert", certificate.is_some()), ("key", key.is_some())];
    match store {
        "embedded" => {
            if !endpoints.is_empty() {
                bail!("--etcd-endpoints is given without --store etcd");
            }
            if let Some((flag, _)) = of_etcd.iter().find(|(_, given)| *given) {
                bail!("--etcd-{flag} is given without --store etcd");
            }
            Ok(StoreChoice::Embedded)
        }
        "etcd" if endpoints.is_empty() => bail!("--store etcd needs --etcd-endpoints URL[,URL...]"),
        "etcd" => {
            let identity = match (certificate, key) {
                (Some(certificate), Some(key)) => Some((certificate, key)),
                (None, None) => None,
                (Some(_), None) => bail!("--etcd-cert needs --etcd-key FILE"),
                (None, Some(_)) => bail!("--etcd-key needs --etcd-cert FILE"),
            };
            Ok(StoreChoice::Etcd { endpoints, ca, identity })
        }
        other => bail!("--store {other:?}: allowed are embedded and etcd"),
    }
}

fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, "api-port: 7000\nnode-name: from-file\nservice-cidr: 10.96.0.0/16\n").unwrap();
        let flags = Flags { config: Some(path), node_name: Some("from-flag".into()), ..Flags::default() };
        let config = flags.resolve("HOST").unwrap();
        assert_eq!((config.api_port, config.node_name.as_str()), (7000, "from-flag"));
        assert_eq!(config.cluster_dns, Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(Flags::default().resolve("HOST").unwrap().node_name, "host");
    }

    #[test]
    fn wrong_values_name_the_flag_and_what_is_allowed() {
        let error = |flags: Flags| flags.resolve("host").unwrap_err().to_string();
        assert!(
            error(Flags { store: Some("x".into()), ..Flags::default() })
                .contains("--store \"x\": allowed are")
        );
        assert!(error(Flags { store: Some("etcd".into()), ..Flags::default() }).contains("--etcd-endpoints"));
        let etcd = || Flags {
            store: Some("etcd".into()),
            etcd_endpoints: vec!["https://a:1".into()],
            ..Flags::default()
        };
        assert!(error(Flags { etcd_cert: Some("c".into()), ..etcd() }).contains("needs --etcd-key"));
        assert!(error(Flags { etcd_key: Some("k".into()), ..etcd() }).contains("needs --etcd-cert"));
        assert!(error(Flags { store: None, ..etcd() }).contains("without --store etcd"));
        assert!(
            error(Flags { cluster_cidr: Some("10.1.2.3/16".into()), ..Flags::default() })
                .contains("--cluster-cidr")
        );
        assert!(error(Flags { node_name: Some("A_b".into()), ..Flags::default() }).contains("--node-name"));
        let without = |part: &str| Flags { without: vec![part.to_owned()], ..Flags::default() };
        assert!(
            error(without("kubelet"))
                .contains("--without \"kubelet\": allowed are scheduler and controllers")
        );
        assert!(without("controllers").resolve("host").unwrap().without.controllers);
        let dns = Flags { cluster_dns: Some(Ipv4Addr::new(1, 2, 3, 4)), ..Flags::default() };
        assert!(error(dns).contains("--cluster-dns 1.2.3.4"));
    }
}
