//! Frames of a watch: how events look on the wire.
//!
//! JSON events come in three pieces, so that the middle one is the very bytes of the cache: an in-process client keeps
//! them without copying.

use super::negotiate::{Media, Shape, Wanted, not_acceptable};
use super::table;
use super::wire;
use api::{Object, Resource, Status, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// What happened to an object, as a watcher sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It came into sight.
    Added,
    /// It changed.
    Modified,
    /// It went out of sight.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
    /// The watch cannot go on.
    Error,
}

impl EventKind {
    /// As the wire says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }

    fn json_head(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Added => b"{\"type\":\"ADDED\",\"object\":",
            Self::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Self::Deleted => b"{\"type\":\"DELETED\",\"object\":",
            Self::Bookmark => b"{\"type\":\"BOOKMARK\",\"object\":",
            Self::Error => b"{\"type\":\"ERROR\",\"object\":",
        })
    }
}

/// Makes frames for one watcher.
pub struct Framer {
    resource: Arc<Resource>,
    wanted: Wanted,
    include: table::Include,
    /// A table names its columns once.
    has_columns: bool,
}

impl Framer {
    /// For a row and what the client wants.
    ///
    /// # Errors
    /// 406 where it cannot be streamed.
    pub fn new(resource: Arc<Resource>, wanted: Wanted, include: table::Include) -> Result<Self, Status> {
        if wanted.media == Media::Yaml {
            return Err(not_acceptable());
        }
        let wanted = Wanted { pretty: false, gzip: false, ..wanted };
        Ok(Self { resource, wanted, include, has_columns: false })
    }

    /// As the response's head says it.
    pub fn content_type(&self) -> &'static str {
        match self.wanted.media {
            Media::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            _ => "application/json",
        }
    }

    /// An event about an object.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn object(
        &mut self,
        kind: EventKind,
        object: &Object,
        frames: &mut VecDeque<Bytes>,
    ) -> Result<(), Status> {
        if self.wanted.media == Media::Json && self.wanted.shape == Shape::Object {
            self.json(kind, object.json.clone(), frames);
            return Ok(());
        }
        let value: Value = object.decode().map_err(Status::internal)?;
        self.value(kind, value, frames)
    }

    /// A bookmark, with an annotation set to `true` if given.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn bookmark(
        &mut self,
        revision: u64,
        annotation: Option<&str>,
        frames: &mut VecDeque<Bytes>,
    ) -> Result<(), Status> {
        let mut value = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": revision.to_string()},
        });
        if let Some(name) = annotation {
            value["metadata"]["annotations"][name] = "true".into();
        }
        self.value(EventKind::Bookmark, value, frames)
    }

    /// The reason why the watch ends.
    pub fn error(&mut self, status: &Status, frames: &mut VecDeque<Bytes>) {
        let value = serde_json::to_value(status).unwrap_or(Value::Null);
        if self.encoded(EventKind::Error, &value, frames).is_err() {
            self.json(EventKind::Error, value.to_string().into(), frames);
        }
    }

    fn value(&mut self, kind: EventKind, value: Value, frames: &mut VecDeque<Bytes>) -> Result<(), Status> {
        let shaped = match self.wanted.shape {
            Shape::Object => value,
            Shape::Metadata(version) => table::metadata_only(&value, version),
            Shape::Table(version) => {
                let metadata = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                let columns = match self.has_columns {
                    true => Value::Null,
                    false => table::columns(&self.resource),
                };
                self.has_columns = true;
                let rows = match kind {
                    EventKind::Bookmark => vec![json!({
                        "cells": vec![Value::Null; table::width(&self.resource)],
                        "object": table::metadata_only(&value, version),
                    })],
                    _ => vec![table::row(&self.resource, &value, self.include, version, Timestamp::now())],
                };
                table::table(version, metadata, columns, rows)
            }
        };
        self.encoded(kind, &shaped, frames)
    }

    fn encoded(&self, kind: EventKind, value: &Value, frames: &mut VecDeque<Bytes>) -> Result<(), Status> {
        match self.wanted.media {
            Media::Protobuf => frames.push_back(wire::watch_frame(kind.as_str(), value)?),
            _ => self.json(kind, wire::encode(value, Wanted::default())?, frames),
        }
        Ok(())
    }

    fn json(&self, kind: EventKind, object: Bytes, frames: &mut VecDeque<Bytes>) {
        frames.extend([kind.json_head(), object, Bytes::from_static(b"}\n")]);
    }
}
