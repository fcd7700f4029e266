//! Images from registries.
//!
//! Upstream speaks of a mirror: here an archive that was imported is one, for the names in it. It is asked last, and only when the registry
//! cannot be reached; a registry that answers "no" is believed.

use super::import::repository_digests;
use super::manifest::{DOCUMENT_BYTES_MAX, Descriptor, Document, digest, hex};
use super::store::{Incoming, Store};
use super::{Auth, Image, PullProgress, PullRequest, Pulled, PulledFrom, normalise};
use crate::error::{Error, Result};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a registry may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a download may stand still.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Where an imported image is at hand, nobody should wait long for a registry that is not there.
const WITH_IMPORTED_TIMEOUT: Duration = Duration::from_secs(5);

/// A registry that could not be reached is not tried again for this long, if an imported image is at hand.
const UNREACHABLE_FOR: Duration = Duration::from_secs(30);

/// A layer's download is tried so often.
const TRIES_MAX: u32 = 3;

/// So many layers are downloaded at once.
const DOWNLOADS_MAX: usize = 3;

const MANIFESTS: &[&str] = &[
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Registries, and which of them were not there.
pub(crate) struct Registries {
    plain_http: Vec<String>,
    unreachable: Mutex<BTreeMap<String, Instant>>,
}

impl Registries {
    /// `plain_http` are hosts (`host:port`) that are spoken to without TLS.
    pub(crate) fn new(plain_http: Vec<String>) -> Self {
        Self { plain_http, unreachable: Mutex::default() }
    }

    fn client(&self, registry: &str) -> Client {
        let local = registry.split(':').next().is_some_and(|host| host == "localhost" || host == "127.0.0.1");
        let mut plain = self.plain_http.clone();
        if local {
            plain.push(registry.to_owned());
        }
        Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain),
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            ..ClientConfig::default()
        })
    }

    /// Brings an image here. See [`crate::Runtime::pull_image`].
    pub(crate) async fn pull(&self, store: &Arc<Store>, request: PullRequest) -> Result<Pulled> {
        let name = normalise(&request.reference)?;
        let reference: Reference =
            name.parse().map_err(|_| Error::InvalidReference { reference: request.reference.clone() })?;
        let registry = reference.resolve_registry().to_owned();
        let imported = store.find(&name).filter(|image| image.imported);
        let Some(imported) = imported else {
            return self.pull_from_registry(store, &reference, &name, &request).await;
        };
        let lately =
            self.unreachable.lock().get(&registry).is_some_and(|when| when.elapsed() < UNREACHABLE_FOR);
        if !lately {
            let resolved = self.resolve(&reference, &name, &request.auth);
            match tokio::time::timeout(WITH_IMPORTED_TIMEOUT, resolved).await {
                Ok(Ok(_)) => return self.pull_from_registry(store, &reference, &name, &request).await,
                Ok(Err(Error::RegistryUnavailable { .. })) | Err(_) => {
                    self.unreachable.lock().insert(registry, Instant::now());
                }
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(Pulled { image: imported, from: PulledFrom::Imported })
    }

    /// See [`crate::Runtime::resolve_image`].
    pub(crate) async fn digest(&self, store: &Store, reference: &str) -> Result<String> {
        let name = normalise(reference)?;
        let parsed: Reference =
            name.parse().map_err(|_| Error::InvalidReference { reference: reference.to_owned() })?;
        if parsed.digest().is_some() {
            return Ok(name);
        }
        let repository = format!("{}/{}@", parsed.registry(), parsed.repository());
        let here = store.find(&name);
        // An archive of `docker save` has no digest that a registry would know.
        let named = |image: &Image| {
            image.digests.iter().find(|own| own.starts_with(&repository)).unwrap_or(&name).clone()
        };
        if let Some(image) = here.as_ref().filter(|image| image.imported) {
            return Ok(named(image));
        }
        match (self.resolve(&parsed, &name, &[]).await, here) {
            (Ok((_, _, _, digest)), _) => Ok(format!("{repository}{digest}")),
            (Err(Error::RegistryUnavailable { .. }), Some(image)) => Ok(named(&image)),
            (Err(error), _) => Err(error),
        }
    }

    /// A client that the registry accepts, and what the reference names: an index or a manifest, and its digest.
    async fn resolve(
        &self,
        reference: &Reference,
        name: &str,
        auth: &[Auth],
    ) -> Result<(Client, RegistryAuth, Vec<u8>, String)> {
        let anonymous = [Auth::Anonymous];
        let mut last = None;
        for auth in if auth.is_empty() { &anonymous } else { auth } {
            let auth = match auth {
                Auth::Anonymous => RegistryAuth::Anonymous,
                Auth::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
                Auth::Bearer { token } => RegistryAuth::Bearer(token.clone()),
            };
            // A client of its own: they keep the first credentials that they were given for a registry.
            let client = self.client(reference.resolve_registry());
            match client.pull_manifest_raw(reference, &auth, MANIFESTS).await {
                Ok((bytes, digest)) => return Ok((client, auth, bytes.to_vec(), digest)),
                Err(error) => last = Some(failure(name, &error)),
            }
            if !matches!(last, Some(Error::Unauthorized { .. })) {
                break;
            }
        }
        Err(last.unwrap_or_else(|| Error::Registry {
            reference: name.to_owned(),
            message: "no answer".to_owned(),
        }))
    }

    async fn pull_from_registry(
        &self,
        store: &Arc<Store>,
        reference: &Reference,
        name: &str,
        request: &PullRequest,
    ) -> Result<Pulled> {
        let bad = |reason: String| Error::BadImage { image: name.to_owned(), reason };
        let (client, auth, bytes, top_digest) = self.resolve(reference, name, &request.auth).await?;
        let parse = |bytes: &[u8]| {
            serde_json::from_slice::<Document>(bytes)
                .map_err(|error| bad(format!("its manifest is damaged: {error}")))
        };
        let mut manifest = parse(&bytes)?;
        if manifest.config.is_none() {
            let inner = reference.clone_with_digest(manifest.for_here(name)?.digest.clone());
            let (bytes, _) = client
                .pull_manifest_raw(&inner, &auth, MANIFESTS)
                .await
                .map_err(|error| failure(name, &error))?;
            manifest = parse(&bytes)?;
        }
        let config = manifest.config.take().filter(|config| !config.is_index());
        let config = config.ok_or_else(|| bad("its manifest has no configuration".to_owned()))?;
        if config.size > DOCUMENT_BYTES_MAX {
            return Err(bad("its configuration is too large".to_owned()));
        }
        let mut config_text = Vec::new();
        client
            .pull_blob(reference, config.digest.as_str(), &mut config_text)
            .await
            .map_err(|error| failure(name, &error))?;
        if digest(&config_text) != config.digest {
            return Err(bad("its configuration has another digest".to_owned()));
        }
        let names = if reference.digest().is_some() { Vec::new() } else { vec![name.to_owned()] };
        let digests = repository_digests(&[name.to_owned()], Some(&top_digest));
        let incoming = Incoming { names, digests, config: config_text, imported: false };
        let download = Arc::new(Download::new(
            client,
            reference.clone(),
            name,
            manifest.layers,
            request.progress.clone(),
        ));
        let image = add(store.clone(), incoming, download).await?;
        Ok(Pulled { image, from: PulledFrom::Registry })
    }
}

/// The layers of one image on their way.
struct Download {
    client: Client,
    reference: Reference,
    name: String,
    layers: Vec<Descriptor>,
    progress: Option<watch::Sender<PullProgress>>,
    arrived: Arc<AtomicU64>,
    slots: tokio::sync::Semaphore,
}

impl Download {
    fn new(
        client: Client,
        reference: Reference,
        name: &str,
        layers: Vec<Descriptor>,
        progress: Option<watch::Sender<PullProgress>>,
    ) -> Self {
        let slots = tokio::sync::Semaphore::new(DOWNLOADS_MAX);
        Self { client, reference, name: name.to_owned(), layers, progress, arrived: Arc::default(), slots }
    }

    /// A layer into a file, its digest checked.
    async fn fetch(&self, store: &Store, index: usize) -> Result<std::fs::File> {
        let layer = &self.layers[index];
        hex(&layer.digest).ok_or_else(|| Error::BadImage {
            image: self.name.clone(),
            reason: format!("{:?} is not a digest", layer.digest),
        })?;
        let _slot = self.slots.acquire().await;
        let mut tries = 0;
        loop {
            tries += 1;
            let file = store.temporary_file()?;
            let copy = file.try_clone().map_err(Error::io("cloning", "a temporary file"))?;
            let mut writer = Counting {
                file: tokio::fs::File::from_std(copy),
                download: self,
                bytes: 0,
                bytes_max: layer.size,
            };
            match self.client.pull_blob(&self.reference, layer.digest.as_str(), &mut writer).await {
                Ok(()) => return Ok(file),
                Err(error) => {
                    self.arrived.fetch_sub(writer.bytes, Ordering::Relaxed);
                    let error = failure(&self.name, &error);
                    if tries == TRIES_MAX || !matches!(error, Error::RegistryUnavailable { .. }) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn tell(&self, unpacked: Option<u32>) {
        if let Some(progress) = &self.progress {
            progress.send_modify(|told| {
                told.bytes = self.arrived.load(Ordering::Relaxed);
                told.bytes_total = self.layers.iter().map(|layer| layer.size).sum();
                told.layers_total = self.layers.len() as u32;
                told.layers = unpacked.unwrap_or(told.layers);
            });
        }
    }
}

/// Downloads what is not here, several layers at once, and unpacks in order.
async fn add(store: Arc<Store>, incoming: Incoming, download: Arc<Download>) -> Result<Image> {
    download.tell(None);
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        // A layer is asked for only when it is not here; the ones behind it are then fetched ahead.
        let mut running: BTreeMap<usize, tokio::task::JoinHandle<Result<std::fs::File>>> = BTreeMap::new();
        let name = download.name.clone();
        let result = store.add(&name, incoming, |index| {
            for ahead in index..download.layers.len().min(index + DOWNLOADS_MAX) {
                running.entry(ahead).or_insert_with(|| {
                    let (store, download) = (store.clone(), download.clone());
                    runtime.spawn(async move { download.fetch(&store, ahead).await })
                });
            }
            download.tell(Some(index as u32));
            let task = running.remove(&index).ok_or_else(|| Error::BadImage {
                image: name.clone(),
                reason: "it has fewer layers than its configuration says".to_owned(),
            })?;
            let ended = |error: tokio::task::JoinError| Error::Registry {
                reference: name.clone(),
                message: error.to_string(),
            };
            let mut file = runtime.block_on(task).map_err(ended)??;
            file.seek(SeekFrom::Start(0)).map_err(Error::io("rewinding", "a temporary file"))?;
            Ok(Box::new(file) as Box<dyn Read>)
        });
        running.into_values().for_each(|task| task.abort());
        download.tell(result.is_ok().then_some(download.layers.len() as u32));
        result
    };
    let ended = |error: tokio::task::JoinError| Error::Registry {
        reference: String::new(),
        message: error.to_string(),
    };
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// A file that counts, and takes no more than was announced.
struct Counting<'a> {
    file: tokio::fs::File,
    download: &'a Download,
    bytes: u64,
    bytes_max: u64,
}

impl AsyncWrite for Counting<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if self.bytes + buffer.len() as u64 > self.bytes_max {
            return Poll::Ready(Err(std::io::Error::other("the layer is larger than announced")));
        }
        let result = std::task::ready!(Pin::new(&mut self.file).poll_write(cx, buffer));
        if let Ok(written) = result {
            self.bytes += written as u64;
            self.download.arrived.fetch_add(written as u64, Ordering::Relaxed);
            self.download.tell(None);
        }
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(cx)
    }
}

/// A registry's error as ours.
fn failure(name: &str, error: &OciDistributionError) -> Error {
    let reference = name.to_owned();
    let message = chain(error);
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => Error::ImageUnknown { reference },
        OciDistributionError::ServerError { code: 404, .. } => Error::ImageUnknown { reference },
        OciDistributionError::ServerError { code: 401 | 403, .. } => {
            Error::Unauthorized { reference, message }
        }
        OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
            Error::Unauthorized { reference, message }
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let code =
                |wanted: &[OciErrorCode]| envelope.errors.iter().any(|error| wanted.contains(&error.code));
            if code(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                Error::ImageUnknown { reference }
            } else if code(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                Error::Unauthorized { reference, message }
            } else {
                Error::Registry { reference, message }
            }
        }
        OciDistributionError::RequestError(_) => Error::RegistryUnavailable { reference, message },
        _ => Error::Registry { reference, message },
    }
}

/// An error and its causes: what went wrong on the way is deep down.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}
