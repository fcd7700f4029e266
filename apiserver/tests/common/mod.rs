//! A server over the real engine in memory, spoken to in process as clients speak to it.
#![allow(dead_code)] // every test binary uses its own part

pub mod tls;

use api::{Resource, UserInfo};
use apiserver::{Body, Builder, Config, Server};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use std::sync::Arc;
use store::embedded::Embedded;
use tower::ServiceExt;

/// A server and how to speak to it.
pub struct Api {
    /// The server.
    pub server: Arc<Server>,
    /// Its store.
    pub store: Arc<Embedded>,
}

/// An answer.
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body, where it is JSON; else null.
    pub json: Value,
    /// Body.
    pub bytes: bytes::Bytes,
}

impl Answer {
    /// The value, where the code is this one.
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.json);
        self.json
    }
}

/// The events of a watch.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
    /// The size of each piece that came.
    pub pieces: Vec<bytes::Bytes>,
}

impl Events {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            let data = frame.into_data().unwrap();
            self.buffer.extend_from_slice(&data);
            self.pieces.push(data);
        }
    }

    /// The next event as `TYPE name@value of a label`.
    pub async fn short(&mut self) -> String {
        match self.next().await {
            None => "END".to_owned(),
            Some(event) => {
                let object = &event["object"];
                let name = object["metadata"]["name"].as_str().unwrap_or("-");
                format!("{} {name}", event["type"].as_str().unwrap())
            }
        }
    }
}

impl Api {
    /// A server of these rows.
    pub async fn new(rows: Vec<Resource>) -> Self {
        Self::with(rows, Config::default()).await
    }

    /// A server of these rows with these bounds.
    pub async fn with(rows: Vec<Resource>, config: Config) -> Self {
        Self::built(|builder| builder.resources(rows).config(config)).await
    }

    /// A server with what is plugged in here.
    pub async fn built(plug: impl FnOnce(Builder) -> Builder) -> Self {
        let store = Embedded::memory().unwrap();
        let server = plug(Server::builder(store.clone())).build().await.unwrap();
        Self { server, store }
    }

    /// Sends a request as an administrator.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> http::Response<Body> {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(bytes::Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        let mut request = request.body(body).unwrap();
        let admin =
            UserInfo { name: "admin".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
        request.extensions_mut().insert(admin);
        self.server.service().oneshot(request).await.unwrap()
    }

    /// Sends a request and reads the whole answer.
    pub async fn with_headers(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let (head, body) = self.send(method, url, headers, body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { code: head.status.as_u16(), headers: head.headers, json, bytes }
    }

    /// A request with a JSON body, or none where it is null.
    pub async fn call(&self, method: &str, url: &str, body: Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        self.with_headers(method, url, &[("content-type", "application/json")], bytes).await
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Answer {
        self.call("GET", url, Value::Null).await
    }

    /// POST.
    pub async fn post(&self, url: &str, body: Value) -> Answer {
        self.call("POST", url, body).await
    }

    /// PATCH with a merge patch.
    pub async fn merge(&self, url: &str, body: Value) -> Answer {
        let bytes = serde_json::to_vec(&body).unwrap();
        self.with_headers("PATCH", url, &[("content-type", "application/merge-patch+json")], bytes).await
    }

    /// A watch.
    pub async fn watch(&self, url: &str) -> Events {
        let response = self.send("GET", url, &[], Vec::new()).await;
        assert_eq!(response.status(), 200);
        Events { body: response.into_body(), buffer: Vec::new(), pieces: Vec::new() }
    }
}

/// Names of the items of a list.
pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}
