//! Asking a container whether it takes requests. Upstream: `pkg/queue/readiness`, `pkg/queue/health`.

use super::Inner;
use super::views::{Question, RevisionView};
use http::Request;
use http_body_util::{BodyExt, Empty};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;

/// Between two questions to a container that is starting. (Upstream: 50 ms.)
const EAGER_INTERVAL: Duration = Duration::from_millis(3);
/// How long an eager question is repeated; then the node agent's own probes take over. Upstream: `PollTimeout`.
const EAGER_MAX: Duration = Duration::from_secs(10);
/// How long one of the eager questions may take. Upstream: `aggressiveProbeTimeout`.
const EAGER_TIMEOUT: Duration = Duration::from_millis(100);

impl Inner {
    /// Whether the container takes requests now; eagerly asked, whether it does within some seconds.
    pub(super) async fn answers(&self, address: IpAddr, view: &RevisionView, is_eager: bool) -> bool {
        if !is_eager {
            return self.answers_once(address, view, view.probe_timeout).await;
        }
        let until = Instant::now() + EAGER_MAX;
        while Instant::now() < until {
            if self.answers_once(address, view, EAGER_TIMEOUT).await {
                return true;
            }
            tokio::time::sleep(EAGER_INTERVAL).await;
        }
        false
    }

    async fn answers_once(&self, address: IpAddr, view: &RevisionView, timeout: Duration) -> bool {
        let asked = async {
            match &view.question {
                Question::Connect => self.backend.connect(address, view.port).await.is_ok(),
                Question::Get { path, headers } => self.get(address, view, path, headers).await,
            }
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or(false)
    }

    async fn get(
        &self,
        address: IpAddr,
        view: &RevisionView,
        path: &str,
        headers: &[(String, String)],
    ) -> bool {
        let authority = std::net::SocketAddr::new(address, view.port);
        let mut request = Request::get(format!("http://{authority}{path}"));
        request =
            request.header("user-agent", "Knative-Queue-Proxy-Probe").header("k-kubelet-probe", "queue");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync();
        let Ok(request) = request.body(body) else { return false };
        let answer = self.backend.send(request, view.is_h2c).await;
        answer.is_ok_and(|answer| (200..400).contains(&answer.status().as_u16()))
    }
}
