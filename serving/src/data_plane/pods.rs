//! The pods of revisions: what listens in them on our behalf, and when they take requests.

use super::backend::Addresses;
use super::forward::{text, whole};
use super::views::{PodView, RevisionView};
use super::{Body, DataPlane, Inner, PodSockets, headers, serve};
use api::ObjectName;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where upstream's queue-proxy listens for requests: HTTP/1.1, and HTTP/2 by prior knowledge.
pub(crate) const REQUEST_PORTS: [u16; 2] = [8012, 8013];
/// Where it is asked to wait until nothing comes any more.
pub(crate) const ADMIN_PORT: u16 = 8022;
/// How long a pod that ends may take until its containers are told. Its grace period may be shorter. Upstream:
/// `drainSleepDuration`.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// The pods of this node that belong to revisions.
pub(super) struct Pods {
    sockets: Arc<dyn PodSockets>,
    all: Mutex<HashMap<String, Pod>>,
    addresses: Arc<Addresses>,
}

/// What is known of a pod.
struct Pod {
    address: IpAddr,
    /// Whether this process saw its container answer before the API said that it is ready.
    is_answering: bool,
    is_ending: bool,
    stop: CancellationToken,
}

impl Pods {
    pub(super) fn new(sockets: Arc<dyn PodSockets>) -> Self {
        Self { sockets, all: Mutex::default(), addresses: Arc::default() }
    }

    /// Which pod has which address.
    pub(super) fn addresses(&self) -> Arc<Addresses> {
        self.addresses.clone()
    }

    /// Listens there no more.
    pub(super) fn forget(&self, uid: &str) {
        let Some(pod) = self.all.lock().remove(uid) else { return };
        pod.stop.cancel();
        let mut addresses = self.addresses.write();
        if addresses.get(&pod.address).is_some_and(|own| own == uid) {
            addresses.remove(&pod.address);
        }
    }

    /// Takes a pod in, unless it was.
    fn begin(&self, uid: &str, address: IpAddr) -> Option<CancellationToken> {
        let mut all = self.all.lock();
        if all.contains_key(uid) {
            return None;
        }
        let stop = CancellationToken::new();
        let pod = Pod { address, is_answering: false, is_ending: false, stop: stop.clone() };
        all.insert(uid.to_owned(), pod);
        self.addresses.write().insert(address, uid.to_owned());
        Some(stop)
    }

    fn change<T>(&self, uid: &str, change: impl FnOnce(&mut Pod) -> T) -> Option<T> {
        self.all.lock().get_mut(uid).map(change)
    }
}

impl DataPlane {
    /// Follows the pods of revisions until `stop`.
    pub(super) async fn follow(&self, stop: CancellationToken) {
        let (mut pods, mut revisions) = (self.0.views.pods.subscribe(), self.0.views.revisions.subscribe());
        loop {
            tokio::select! {
                Some(delta) = pods.next() => {
                    let revision = |view: &PodView| ObjectName::new(&delta.key.namespace, &view.revision);
                    match (&delta.new, &delta.old) {
                        (Some(view), _) => self.0.pod_changed(&revision(view), view).await,
                        (None, Some(view)) => {
                            self.0.revisions.of(&revision(view)).remove_pod(&view.uid);
                            self.0.pods.forget(&view.uid);
                        }
                        (None, None) => {}
                    }
                }
                Some(delta) = revisions.next() => match &delta.new {
                    Some(view) => self.0.revisions.of(&delta.key).set_concurrency_max(view.concurrency_max),
                    None => self.0.revisions.forget(&delta.key),
                },
                () = stop.cancelled() => return,
                else => return,
            }
        }
    }
}

impl Inner {
    /// See [`DataPlane::pod_attached`].
    pub(super) async fn pod_attached(self: &Arc<Self>, namespace: &str, name: &str, uid: &str) {
        // Where the view is behind, the pod is taken in when it comes (`follow`).
        let view = self.views.pods.get(namespace, name).filter(|view| view.uid == uid);
        if let Some(view) = view {
            self.take_in(&ObjectName::new(namespace, &view.revision), uid).await;
        }
    }

    async fn pod_changed(self: &Arc<Self>, revision: &ObjectName, view: &PodView) {
        if !view.is_ending {
            self.take_in(revision, &view.uid).await;
        }
        let is_answering = self.pods.change(&view.uid, |pod| {
            pod.is_ending = view.is_ending;
            // From then on the API knows better.
            pod.is_answering &= !view.is_ready;
            pod.is_answering
        });
        if let Some(address) = view.address {
            let is_usable = (view.is_ready || is_answering == Some(true)) && !view.is_ending;
            self.revisions.of(revision).set_pod(&view.uid, address, is_usable);
        }
    }

    /// Listens in a pod of this node, unless that is done, and waits beside until its container answers.
    async fn take_in(self: &Arc<Self>, revision: &ObjectName, uid: &str) {
        let Some(address) = self.pods.sockets.address(uid).await else { return };
        let Some(stop) = self.pods.begin(uid, address) else { return };
        self.revisions.of(revision).set_pod(uid, address, false);
        for port in REQUEST_PORTS.into_iter().chain([ADMIN_PORT]) {
            let listener =
                self.pods.sockets.listen(uid, port).await.and_then(tokio::net::TcpListener::from_std);
            match listener {
                Ok(listener) => drop(tokio::spawn(self.clone().listen(
                    listener,
                    port,
                    revision.clone(),
                    uid.to_owned(),
                    stop.clone(),
                ))),
                Err(error) => tracing::warn!(uid, port, %error, "nothing listens in a pod of a revision"),
            }
        }
        tokio::spawn(self.clone().wait_until_it_answers(revision.clone(), uid.to_owned(), address, stop));
    }

    async fn listen(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        port: u16,
        revision: ObjectName,
        uid: String,
        stop: CancellationToken,
    ) {
        let (revision, uid): (Arc<ObjectName>, Arc<str>) = (revision.into(), uid.into());
        serve::serve(listener, stop, move |request, peer| {
            let (own, revision, uid) = (self.clone(), revision.clone(), uid.clone());
            async move {
                match port {
                    ADMIN_PORT => own.admin(&revision, &uid, &request).await,
                    _ => own.in_pod(&revision, &uid, request, peer).await,
                }
            }
        })
        .await;
    }

    /// The first pod of a revision is waited for: it takes requests as soon as its container answers, not when the API says so.
    async fn wait_until_it_answers(
        self: Arc<Self>,
        revision: ObjectName,
        uid: String,
        address: IpAddr,
        stop: CancellationToken,
    ) {
        let Some(view) = self.views.revisions.get(&revision.namespace, &revision.name) else { return };
        if !view.is_simple {
            return;
        }
        let answers = tokio::select! {
            answers = self.answers(address, &view, true) => answers,
            () = stop.cancelled() => return,
        };
        let is_usable = self.pods.change(&uid, |pod| {
            pod.is_answering = answers && !pod.is_ending;
            pod.is_answering
        });
        if is_usable == Some(true) {
            self.revisions.of(&revision).set_pod(&uid, address, true);
        }
    }

    /// What comes by the pod's own address: requests, and the node agent's question whether the pod is ready.
    async fn in_pod(
        &self,
        revision: &ObjectName,
        uid: &str,
        mut request: Request<Incoming>,
        peer: IpAddr,
    ) -> Response<Body> {
        if request.headers().contains_key(&headers::PROBE) {
            return self.probed(revision, uid, request.headers()).await;
        }
        if !request.headers().contains_key("x-forwarded-for") {
            let host = headers::host(request.uri(), request.headers()).to_owned();
            headers::forwarded(request.headers_mut(), peer, &host);
        }
        self.to_revision(revision, Some(uid), request).await
    }

    async fn probed(&self, revision: &ObjectName, uid: &str, headers: &http::HeaderMap) -> Response<Body> {
        if headers.get(&headers::PROBE).is_none_or(|own| own != "queue") {
            return text(StatusCode::BAD_REQUEST, "unexpected probe header value\n");
        }
        let view: Option<Arc<RevisionView>> = self.views.revisions.get(&revision.namespace, &revision.name);
        let pod = self.pods.change(uid, |pod| (pod.address, pod.is_ending));
        let (Some(view), Some((address, is_ending))) = (view, pod) else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "queue not ready");
        };
        if is_ending {
            return text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
        }
        match self.answers(address, &view, view.is_eager).await {
            true => text(StatusCode::OK, "queue"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "queue not ready"),
        }
    }

    /// `/wait-for-drain`: answers once no request is in the pod any more. The node agent asks before it tells a container to end
    /// (`preStop`), and maybe before the view shows that the pod ends.
    async fn admin(&self, revision: &ObjectName, uid: &str, request: &Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/wait-for-drain" {
            return text(StatusCode::NOT_FOUND, "");
        }
        let requests = self.revisions.of(revision);
        let address = self.pods.change(uid, |pod| {
            pod.is_ending = true;
            pod.address
        });
        if let Some(address) = address {
            requests.set_pod(uid, address, false);
        }
        // Who still has requests then loses them: the pod ends.
        let _ = tokio::time::timeout(DRAIN_MAX, requests.drained(uid)).await;
        Response::new(whole(""))
    }
}
