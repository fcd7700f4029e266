//! A watch: the stream of changes of a resource.

use crate::body::Body;
use crate::client::unreachable;
use crate::dynamic::malformed;
use api::{Object, Status};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body::Body as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The longest line of a watch: the largest object and what is around it.
const LINE_BYTES_MAX: usize = 16 << 20;

/// One change.
#[derive(Debug)]
pub enum WatchEvent {
    /// The object is new (or was there when the watch started).
    Added(Object),
    /// The object has changed.
    Modified(Object),
    /// The object is gone (or no longer selected); this is its last version, under the version of the deletion.
    Deleted(Object),
    /// Nothing happened up to this version.
    Bookmark {
        /// Where a new watch may go on.
        resource_version: u64,
        /// Whether all objects that existed at the start have been sent now.
        initial_events_end: bool,
    },
}

/// The changes as they come.
///
/// # Guarantees
/// An object that an in-process server sends as a frame of its own keeps the very bytes of that frame.
/// After an error or the end the stream stays at its end; whoever wants to go on starts a new watch.
pub struct WatchStream {
    body: Body,
    decoder: Decoder,
    ended: bool,
}

impl WatchStream {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, decoder: Decoder::default(), ended: false }
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            match this.decoder.next_event() {
                Some(Ok(event)) => return Poll::Ready(Some(Ok(event))),
                Some(Err(status)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {}
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        this.decoder.push(data);
                    }
                }
                Some(Err(error)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(unreachable(&*error))));
                }
                None => {
                    this.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

/// Cuts frames into events.
///
/// The common case in process is three frames an event: head, object, tail. `whole` is then the object, untouched. Any
/// other cut is joined in `line` and cut at line ends.
#[derive(Default)]
struct Decoder {
    line: BytesMut,
    whole: Option<Bytes>,
    ready: Option<(Kind, Bytes)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl Kind {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "ADDED" => Self::Added,
            "MODIFIED" => Self::Modified,
            "DELETED" => Self::Deleted,
            "BOOKMARK" => Self::Bookmark,
            "ERROR" => Self::Error,
            _ => return None,
        })
    }

    /// The kind of a frame that is exactly the part of an event before its object.
    fn of_head(head: &[u8]) -> Option<Self> {
        let text = head.strip_prefix(b"{\"type\":\"")?.strip_suffix(b"\",\"object\":")?;
        Self::of(std::str::from_utf8(text).ok()?)
    }
}

impl Decoder {
    fn push(&mut self, data: Bytes) {
        if let Some(object) = self.whole.take() {
            if let (Some(kind), b"}\n") = (Kind::of_head(&self.line), &*data) {
                self.line.clear();
                self.ready = Some((kind, object));
                return;
            }
            self.line.extend_from_slice(&object);
        } else if data.first() == Some(&b'{')
            && data.last() == Some(&b'}')
            && Kind::of_head(&self.line).is_some()
        {
            self.whole = Some(data);
            return;
        }
        self.line.extend_from_slice(&data);
    }

    fn next_event(&mut self) -> Option<Result<WatchEvent, Status>> {
        if let Some((kind, object)) = self.ready.take() {
            return Some(event(kind, object));
        }
        loop {
            let Some(end) = memchr(&self.line) else {
                let too_long = self.line.len() > LINE_BYTES_MAX;
                return too_long.then(|| Err(Status::internal("a line of the watch is too long")));
            };
            let line = self.line.split_to(end + 1);
            if !line.trim_ascii().is_empty() {
                return Some(parse_line(&line));
            }
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn parse_line(line: &[u8]) -> Result<WatchEvent, Status> {
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
    let kind = Kind::of(&line.kind)
        .ok_or_else(|| Status::internal(format_args!("unknown type of watch event {:?}", line.kind)))?;
    // A copy of its own: a slice would keep the whole chunk alive as long as one object of it.
    event(kind, Bytes::copy_from_slice(line.object.get().as_bytes()))
}

fn event(kind: Kind, json: Bytes) -> Result<WatchEvent, Status> {
    let object = |json| Object::parse(json).map_err(|error| malformed(&error));
    Ok(match kind {
        Kind::Added => WatchEvent::Added(object(json)?),
        Kind::Modified => WatchEvent::Modified(object(json)?),
        Kind::Deleted => WatchEvent::Deleted(object(json)?),
        Kind::Bookmark => bookmark(&json)?,
        Kind::Error => {
            return Err(serde_json::from_slice::<Status>(&json).unwrap_or_else(|error| malformed(&error)));
        }
    })
}

fn bookmark(json: &[u8]) -> Result<WatchEvent, Status> {
    #[derive(Deserialize)]
    struct Bookmark {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        #[serde(default)]
        resource_version: String,
        #[serde(default)]
        annotations: Option<std::collections::BTreeMap<String, String>>,
    }
    let Bookmark { metadata } = serde_json::from_slice(json).map_err(|error| malformed(&error))?;
    let ends = |marks: &std::collections::BTreeMap<String, String>| {
        marks.get("k8s.io/initial-events-end").is_some_and(|mark| mark == "true")
    };
    Ok(WatchEvent::Bookmark {
        resource_version: metadata.resource_version.parse().unwrap_or(0),
        initial_events_end: metadata.annotations.as_ref().is_some_and(ends),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &[u8] = br#"{"metadata":{"name":"a","resourceVersion":"3"}}"#;

    fn decode(frames: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for frame in frames {
            decoder.push(Bytes::copy_from_slice(frame));
            while let Some(event) = decoder.next_event() {
                found.push(match event {
                    Ok(WatchEvent::Added(object)) => format!("added {}", object.meta.key),
                    Ok(WatchEvent::Modified(object)) => format!("modified {}", object.meta.key),
                    Ok(WatchEvent::Deleted(object)) => format!("deleted {}", object.meta.key),
                    Ok(WatchEvent::Bookmark { resource_version, initial_events_end }) => {
                        format!("bookmark {resource_version} {initial_events_end}")
                    }
                    Err(status) => format!("error {}", status.code),
                });
            }
        }
        found
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let text = [
            br#"{"type":"ADDED","object":"#.as_slice(),
            OBJECT,
            b"}\n",
            br#"{"type":"DELETED","object":{"metadata":{"name":"b"}}}"#,
            b"\n\n",
            br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            b"\n",
            br#"{"type":"ERROR","object":{"code":410,"reason":"Expired"}}"#,
            b"\n",
        ];
        let expect = ["added a", "deleted b", "bookmark 9 true", "error 410"];
        assert_eq!(decode(&text), expect);
        let whole = text.concat();
        for size in [1, 2, 7, 25, 47, 73, whole.len()] {
            assert_eq!(decode(&whole.chunks(size).collect::<Vec<_>>()), expect, "frames of {size}");
        }
    }

    #[test]
    fn an_object_that_is_a_frame_keeps_its_bytes() {
        let object = Bytes::from_static(OBJECT);
        let mut decoder = Decoder::default();
        for frame in [
            Bytes::from_static(br#"{"type":"MODIFIED","object":"#),
            object.clone(),
            Bytes::from_static(b"}\n"),
        ] {
            assert!(decoder.next_event().is_none());
            decoder.push(frame);
        }
        let Some(Ok(WatchEvent::Modified(found))) = decoder.next_event() else { panic!("no event") };
        assert_eq!(found.json.as_ptr(), object.as_ptr());
    }
}
