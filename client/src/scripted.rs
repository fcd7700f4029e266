//! A server for tests that answers as a test tells it to.

use crate::body::{Body, BoxError, full};
use crate::client::{Client, Service};
use api::{Status, UserInfo};
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::Instant;

/// One request as a test sees it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// `GET /api/v1/pods?watch=true…`
    pub(crate) line: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// One answer.
pub(crate) enum Answer {
    Json(Value),
    Error(Status),
    Watch(mpsc::Receiver<Bytes>),
}

/// Answers in order; a request beyond the script waits for ever, as a quiet watch does.
#[derive(Clone, Default)]
pub(crate) struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The server's end of a watch.
pub(crate) struct WatchEnd(mpsc::Sender<Bytes>);

impl WatchEnd {
    pub(crate) async fn send(&mut self, kind: &str, object: Value) {
        let line = format!("{}\n", json!({"type": kind, "object": object}));
        self.0.send(line.into()).await.unwrap();
    }

    /// The bookmark that ends the initial events.
    pub(crate) async fn initial_end(&mut self, version: u64) {
        self.send(
            "BOOKMARK",
            json!({"metadata": {"resourceVersion": version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}),
        )
        .await;
    }
}

impl Script {
    pub(crate) fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        Client::in_process(Service::new(service), UserInfo::component("test"))
    }

    pub(crate) fn json(&self, answer: Value) {
        self.answers.lock().push_back(Answer::Json(answer));
    }

    pub(crate) fn error(&self, status: Status) {
        self.answers.lock().push_back(Answer::Error(status));
    }

    pub(crate) fn watch(&self) -> WatchEnd {
        let (sender, receiver) = mpsc::channel(16);
        self.answers.lock().push_back(Answer::Watch(receiver));
        WatchEnd(sender)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The request lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().iter().map(|seen| seen.line.clone()).collect()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        assert_eq!(request.extensions().get::<UserInfo>().map(|user| user.name.as_str()), Some("test"));
        let line = format!("{} {}", request.method(), request.uri());
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        self.seen.lock().push(Seen { line, body, at: Instant::now() });
        let answer = self.answers.lock().pop_front();
        let (code, body) = match answer {
            None => std::future::pending().await,
            Some(Answer::Json(json)) => (200, full(json.to_string())),
            Some(Answer::Error(status)) => (status.code, full(serde_json::to_vec(&status).unwrap())),
            Some(Answer::Watch(frames)) => {
                (200, StreamBody::new(frames.map(|data| Ok::<_, BoxError>(Frame::data(data)))).boxed_unsync())
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = code.try_into().unwrap();
        response
    }
}
