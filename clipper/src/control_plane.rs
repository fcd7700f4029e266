//! The control plane of one process: store, API server, its socket, and what a fresh cluster must hold.

use crate::backup::{Backup, store_path};
use crate::config::{Config, StoreChoice};
use crate::control_socket::Verb;
use crate::late::Late;
use crate::pki::{Leaf, Pki, renewal_interval};
use crate::{bootstrap, encryption, kubeconfig, pki};
use anyhow::{Context as _, Result};
use api::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use api::{Lookup, UserInfo};
use apiserver::aggregate::FrontProxy;
use apiserver::audit::policy::Policy;
use apiserver::audit::{self, AuditLog};
use apiserver::auth::token::Tokens;
use apiserver::auth::token::file::FileTokens;
use apiserver::auth::token::keys::Keys;
use apiserver::auth::token::service_account::{self, ServiceAccounts};
use apiserver::connect::Nodes;
use apiserver::health::Health;
use apiserver::hooks::{Handler, Pure};
use apiserver::standard::Standard;
use apiserver::{Server, Service};
use arc_swap::ArcSwap;
use client::Client;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::embedded::Embedded;
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// Who the API server is to servers that serve other group versions.
const FRONT_PROXY: &str = "front-proxy-client";

/// A running control plane.
pub struct ControlPlane {
    service: Service,
    /// Where the administrator's kubeconfig is.
    pub kubeconfig: PathBuf,
    ready: Arc<AtomicBool>,
    listener: TcpListener,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    renewal: Renewal,
    audit: Arc<AuditLog>,
    /// The store, where it is here.
    embedded: Option<Arc<Embedded>>,
    /// Made at the start like other objects, from the keys of this cluster.
    extension_authentication: serde_json::Value,
}

/// What is needed to renew the server's certificates: its own, and the one that it shows nodes.
struct Renewal {
    pki: Arc<Pki>,
    nodes: Arc<Nodes>,
    front_proxy: Arc<FrontProxy>,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Renewal {
    fn tls(&self) -> Result<rustls::ServerConfig> {
        let leaf = Leaf {
            common_name: "kube-apiserver",
            organizations: &[],
            dns_names: self.dns_names.clone(),
            addresses: self.addresses.clone(),
        };
        let pair = self.pki.ensure("apiserver", &leaf, OffsetDateTime::now_utc())?;
        Ok(apiserver::serve::tls(&pair.certificate_pem, &pair.key_pem, self.pki.ca_pem())?)
    }
}

impl ControlPlane {
    /// Opens the store, builds the server, binds its port and creates what a fresh cluster must hold.
    ///
    /// # Errors
    /// Says which part failed and what to do about it.
    pub async fn start(config: &Config, pki: Arc<Pki>, node_ip: Ipv4Addr) -> Result<Self> {
        let (store, embedded) = open_store(config).await?;
        let ready = Arc::new(AtomicBool::new(false));
        let health = |endpoint| -> Arc<dyn Handler> { Arc::new(Health::new(endpoint)) };
        let readyz = Health::new("readyz").flag("poststarthook/bootstrap", ready.clone());
        let lookup = Arc::new(Late::default());
        let tokens = Arc::new(tokens(config, &pki, lookup.clone())?);
        let address = format!("https://{node_ip}:{}", config.api_port);
        let nodes = Arc::new(Nodes::new(lookup.clone(), Arc::new(node_tls(&pki)?))?);
        let standard = Standard { lookup: lookup.clone(), tokens, address, nodes: nodes.clone() };
        let audit = open_audit(config)?;
        let encryption = Arc::new(encryption::open(&config.data_dir.join("pki"))?);
        let mut builder = standard
            .install(Server::builder(store).resources(resources::table()))
            .audit(audit.clone())
            .transform("core", "secrets", encryption);
        for plugin in resources::admission::chain() {
            builder = builder.admission(Arc::new(Pure(plugin)));
        }
        let (front_proxy_pki, pair) = front_proxy(&pki)?;
        let requestheader_ca_pem = front_proxy_pki.ca_pem().to_owned();
        let front_proxy = Arc::new(FrontProxy::new(pair.certificate_pem, pair.key_pem));
        let server = builder
            .front_proxy(front_proxy.clone())
            .path("/healthz", health("healthz"))
            .path("/livez", health("livez"))
            .path("/readyz", Arc::new(readyz))
            .build()
            .await
            .context("the API server cannot read its store")?;
        lookup.set(server.lookup());
        let service = server.service();
        let renewal = renewal(config, pki.clone(), node_ip, nodes, front_proxy);
        let tls = Arc::new(ArcSwap::from_pointee(renewal.tls()?));
        let listener =
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, config.api_port)).await.with_context(|| {
                format!(
                    "port {} cannot be bound: stop what uses it, or choose another with --api-port",
                    config.api_port
                )
            })?;
        let kubeconfig = write_kubeconfig(config, &pki, node_ip)?;
        let extension_authentication = extension_authentication(pki.ca_pem(), &requestheader_ca_pem);
        Ok(Self {
            service,
            kubeconfig,
            ready,
            listener,
            tls,
            renewal,
            audit,
            embedded,
            extension_authentication,
        })
    }

    /// What the local control socket may ask of it.
    pub fn verbs(&self) -> Vec<Arc<dyn Verb>> {
        vec![Arc::new(Backup(self.embedded.clone()))]
    }

    /// A client of the server in this process under the name of a component (`system:kube-scheduler`).
    pub fn component(&self, name: &str) -> Client {
        self.as_user(UserInfo::component(name), name.trim_start_matches("system:"))
    }

    /// A client of the server in this process for a user; `name` is the field manager and the user agent.
    pub fn as_user(&self, user: UserInfo, name: &str) -> Client {
        Client::in_process(self.service.clone(), user).named(name)
    }

    /// A client that may do anything: for what the server itself has to make.
    pub fn loopback(&self) -> Client {
        let groups = vec![GROUP_MASTERS.to_owned(), GROUP_AUTHENTICATED.to_owned()];
        let user = UserInfo { name: "system:apiserver".to_owned(), groups, ..UserInfo::default() };
        Client::in_process(self.service.clone(), user).named("kube-apiserver")
    }

    /// A client for the controllers. They run as one user that may do anything, as upstream's do without service account
    /// credentials: the garbage collector and the namespace controller alone need every resource.
    pub fn controllers(&self) -> Client {
        let mut user = UserInfo::component("system:kube-controller-manager");
        user.groups.push(GROUP_MASTERS.to_owned());
        Client::in_process(self.service.clone(), user).named("kube-controller-manager")
    }

    /// Creates what is missing; then the server calls itself ready.
    ///
    /// # Errors
    /// See [`bootstrap::create_missing`].
    pub async fn bootstrap(&self, objects: &[serde_json::Value]) -> Result<()> {
        let own = std::slice::from_ref(&self.extension_authentication);
        let mut made = bootstrap::create_missing(&self.loopback(), &resources::table(), objects).await?;
        made += bootstrap::create_missing(&self.loopback(), &resources::table(), own).await?;
        tracing::debug!(made, "bootstrap objects");
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Serves until `shutdown` resolves, renewing the certificate meanwhile.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let (tls, renewal) = (self.tls.clone(), self.renewal);
        let renew = async {
            loop {
                tokio::time::sleep(renewal_interval()).await;
                let renewed = renewal
                    .tls()
                    .and_then(|config| Ok((config, node_tls(&renewal.pki)?, front_proxy(&renewal.pki)?.1)));
                match renewed {
                    Ok((config, towards_nodes, towards_servers)) => {
                        tls.store(Arc::new(config));
                        renewal.nodes.renew(Arc::new(towards_nodes));
                        renewal.front_proxy.renew(towards_servers.certificate_pem, towards_servers.key_pem);
                    }
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "the certificate cannot be renewed")
                    }
                }
            }
        };
        tokio::select! {
            () = apiserver::serve::serve(self.service, self.listener, self.tls, shutdown) => {}
            () = renew => {}
        }
        self.audit.close().await;
    }
}

/// The audit log, `audit.log` below the data directory.
fn open_audit(config: &Config) -> Result<Arc<AuditLog>> {
    let policy = match &config.audit_policy {
        None => Policy::standard(),
        Some(path) => {
            let of = || format!("--audit-policy {}", path.display());
            Policy::parse(&std::fs::read_to_string(path).with_context(of)?).with_context(of)?
        }
    };
    let path = config.data_dir.join("audit.log");
    let file = audit::file::File::open(&path, audit::file::Bounds::default());
    Ok(AuditLog::start(policy, file.with_context(|| format!("cannot write {}", path.display()))?))
}

async fn open_store(config: &Config) -> Result<(Arc<dyn store::Store>, Option<Arc<Embedded>>)> {
    match &config.store {
        StoreChoice::Embedded => {
            let path = store_path(&config.data_dir);
            let dir = path.parent().unwrap_or(&config.data_dir);
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let store = Embedded::open(&path, store::embedded::Options::default())?;
            Ok((store.clone(), Some(store)))
        }
        StoreChoice::Etcd { endpoints, ca, identity } => {
            let read = |flag: &str, path: &PathBuf| {
                let pem = std::fs::read_to_string(path);
                pem.with_context(|| format!("--etcd-{flag} {} cannot be read", path.display()))
            };
            let options = store::etcd::Options {
                endpoints: endpoints.clone(),
                ca_pem: ca.as_ref().map(|path| read("ca", path)).transpose()?,
                identity_pem: match identity {
                    Some((certificate, key)) => Some((read("cert", certificate)?, read("key", key)?)),
                    None => None,
                },
            };
            let opened = store::etcd::Etcd::open(&options).await;
            Ok((opened.with_context(|| format!("--etcd-endpoints {}", endpoints.join(",")))?, None))
        }
    }
}

/// Tokens of service accounts (signed with a key of this cluster) and bootstrap tokens.
fn tokens(config: &Config, pki: &Pki, lookup: Arc<dyn Lookup>) -> Result<Tokens> {
    let keys = Keys::from_pem(&pki.service_account_key()?.serialize_pem(), "")?;
    let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
    let options = service_account::Options {
        issuers: vec![issuer.clone()],
        audiences: vec![issuer],
        seconds_max: None,
        extends: true,
    };
    let accounts = Arc::new(ServiceAccounts::new(keys, options, lookup.clone()));
    Ok(Tokens { file: FileTokens::parse("")?, accounts, lookup })
}

/// The API server towards the API of nodes: it may do anything there.
fn node_tls(pki: &Pki) -> Result<rustls::ClientConfig> {
    let leaf = Leaf {
        common_name: "kube-apiserver-kubelet-client",
        organizations: &[GROUP_MASTERS],
        ..Leaf::default()
    };
    let pair = pki.ensure("apiserver-kubelet-client", &leaf, OffsetDateTime::now_utc())?;
    Ok(apiserver::connect::tls(pki.ca_pem(), &pair.certificate_pem, &pair.key_pem)?)
}

/// What the API server shows servers that serve other group versions, and the authority behind it.
fn front_proxy(pki: &Pki) -> Result<(Pki, pki::Pair)> {
    let own = pki.front_proxy()?;
    let leaf = Leaf { common_name: FRONT_PROXY, ..Leaf::default() };
    let pair = own.ensure("client", &leaf, OffsetDateTime::now_utc())?;
    Ok((own, pair))
}

/// Tells servers that serve other group versions whom to believe. Upstream: `clusterauthenticationtrust`.
fn extension_authentication(client_ca_pem: &str, requestheader_ca_pem: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": client_ca_pem,
            "requestheader-allowed-names": serde_json::json!([FRONT_PROXY]).to_string(),
            "requestheader-client-ca-file": requestheader_ca_pem,
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
        },
    })
}

fn renewal(
    config: &Config,
    pki: Arc<Pki>,
    node_ip: Ipv4Addr,
    nodes: Arc<Nodes>,
    front_proxy: Arc<FrontProxy>,
) -> Renewal {
    let service = format!("kubernetes.default.svc.{}", config.cluster_domain);
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        &service,
        &config.node_name,
    ];
    let addresses = [Ipv4Addr::LOCALHOST, node_ip, config.service_cidr.address(1)];
    Renewal {
        pki,
        nodes,
        front_proxy,
        dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
        addresses: addresses.into_iter().map(IpAddr::V4).collect(),
    }
}

fn write_kubeconfig(config: &Config, pki: &Pki, node_ip: Ipv4Addr) -> Result<PathBuf> {
    let leaf = Leaf { common_name: "kubernetes-admin", organizations: &[GROUP_MASTERS], ..Leaf::default() };
    let admin = pki.ensure("admin", &leaf, OffsetDateTime::now_utc())?;
    let path = config.data_dir.join("kubeconfig");
    let server = format!("https://{node_ip}:{}", config.api_port);
    pki::write_private(&path, &kubeconfig::render(&server, pki.ca_pem(), &admin))?;
    Ok(path)
}
