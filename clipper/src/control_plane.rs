//! The control plane of one process: store, API server, its socket, and what a fresh cluster must hold.

use crate::config::{Config, StoreChoice};
use crate::late::Late;
use crate::pki::{Leaf, Pki, renewal_interval};
use crate::{bootstrap, kubeconfig, pki};
use anyhow::{Context as _, Result, bail};
use api::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use api::{Lookup, UserInfo};
use apiserver::auth::token::Tokens;
use apiserver::auth::token::file::FileTokens;
use apiserver::auth::token::keys::Keys;
use apiserver::auth::token::service_account::{self, ServiceAccounts};
use apiserver::connect::Nodes;
use apiserver::health::Health;
use apiserver::hooks::Handler;
use apiserver::standard::Standard;
use apiserver::{Server, Service};
use arc_swap::ArcSwap;
use client::Client;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use time::OffsetDateTime;
use tokio::net::TcpListener;

/// A running control plane.
pub struct ControlPlane {
    service: Service,
    /// Where the administrator's kubeconfig is.
    pub kubeconfig: PathBuf,
    ready: Arc<AtomicBool>,
    listener: TcpListener,
    tls: Arc<ArcSwap<rustls::ServerConfig>>,
    renewal: Renewal,
}

/// What is needed to renew the server's certificates: its own, and the one that it shows nodes.
struct Renewal {
    pki: Arc<Pki>,
    nodes: Arc<Nodes>,
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
        let store = open_store(config)?;
        let ready = Arc::new(AtomicBool::new(false));
        let health = |endpoint| -> Arc<dyn Handler> { Arc::new(Health::new(endpoint)) };
        let readyz = Health::new("readyz").flag("poststarthook/bootstrap", ready.clone());
        let lookup = Arc::new(Late::default());
        let tokens = Arc::new(tokens(config, &pki, lookup.clone())?);
        let address = format!("https://{node_ip}:{}", config.api_port);
        let nodes = Arc::new(Nodes::new(lookup.clone(), Arc::new(node_tls(&pki)?))?);
        let standard = Standard { lookup: lookup.clone(), tokens, address, nodes: nodes.clone() };
        let builder = standard.install(Server::builder(store).resources(resources::all()));
        let server = builder
            .path("/healthz", health("healthz"))
            .path("/livez", health("livez"))
            .path("/readyz", Arc::new(readyz))
            .build()
            .await
            .context("the API server cannot read its store")?;
        lookup.set(server.lookup());
        let service = server.service();
        let renewal = renewal(config, pki.clone(), node_ip, nodes);
        let tls = Arc::new(ArcSwap::from_pointee(renewal.tls()?));
        let listener =
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, config.api_port)).await.with_context(|| {
                format!(
                    "port {} cannot be bound: stop what uses it, or choose another with --api-port",
                    config.api_port
                )
            })?;
        let kubeconfig = write_kubeconfig(config, &pki, node_ip)?;
        Ok(Self { service, kubeconfig, ready, listener, tls, renewal })
    }

    /// A client of the server in this process under the name of a component (`system:kube-scheduler`).
    pub fn component(&self, name: &str) -> Client {
        Client::in_process(self.service.clone(), UserInfo::component(name))
            .named(name.trim_start_matches("system:"))
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
        let made = bootstrap::create_missing(&self.loopback(), &resources::all(), objects).await?;
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
                let renewed = renewal.tls().and_then(|config| Ok((config, node_tls(&renewal.pki)?)));
                match renewed {
                    Ok((config, towards_nodes)) => {
                        tls.store(Arc::new(config));
                        renewal.nodes.renew(Arc::new(towards_nodes));
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
    }
}

fn open_store(config: &Config) -> Result<Arc<dyn store::Store>> {
    match &config.store {
        StoreChoice::Embedded => {
            let dir = config.data_dir.join("store");
            std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            let options = store::embedded::Options::default();
            Ok(store::embedded::Embedded::open(&dir.join("data.redb"), options)?)
        }
        StoreChoice::Etcd { .. } => {
            bail!("--store etcd is not there yet in version {}", env!("CARGO_PKG_VERSION"))
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

fn renewal(config: &Config, pki: Arc<Pki>, node_ip: Ipv4Addr, nodes: Arc<Nodes>) -> Renewal {
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
