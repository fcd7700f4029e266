//! JSON bytes of objects: the form that is kept, the form that is published, and how one is made from the other
//! without decoding.
//!
//! **Invariant.** Kept bytes begin with `{"kind":K,"apiVersion":V,"metadata":{` and have no `resourceVersion`; published
//! bytes have `"resourceVersion":"N",` right there.

use bytes::{Bytes, BytesMut};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

const METADATA: &[u8] = b"\"metadata\":{";
const RESOURCE_VERSION: &[u8] = b"\"resourceVersion\":\"";

/// An object with `kind`, `apiVersion` and `metadata` first; `metadata` without `resourceVersion`.
struct Kept<'a>(&'a Map<String, Value>);

/// Metadata without `resourceVersion`.
struct KeptMetadata<'a>(Option<&'a Map<String, Value>>);

impl Serialize for KeptMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0.into_iter().flatten().filter(|(key, _)| *key != "resourceVersion") {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl Serialize for Kept<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for key in ["kind", "apiVersion"] {
            map.serialize_entry(key, self.0.get(key).unwrap_or(&Value::Null))?;
        }
        map.serialize_entry("metadata", &KeptMetadata(self.0.get("metadata").and_then(Value::as_object)))?;
        for (key, value) in self.0.iter().filter(|(key, _)| !is_head(key)) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

fn is_head(key: &str) -> bool {
    matches!(key, "kind" | "apiVersion" | "metadata")
}

/// The bytes that are kept.
pub fn kept(object: &Value) -> Bytes {
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    // Writing a `Value` into memory cannot fail: its keys are strings.
    serde_json::to_vec(&Kept(map)).unwrap_or_default().into()
}

/// Where metadata's first field is, in kept or published bytes.
fn metadata_start(json: &[u8]) -> Option<usize> {
    // `kind` and `apiVersion` come before and hold identifiers, so the first match is the key.
    let head = json.get(..json.len().min(HEAD_LEN_MAX))?;
    head.windows(METADATA.len()).position(|window| window == METADATA).map(|at| at + METADATA.len())
}

/// `kind` and `apiVersion` with quotes and names: 63 for a kind, 253 and 63 for group and version.
const HEAD_LEN_MAX: usize = 512;

/// The bytes that clients see: `kept` with the revision of its write.
pub fn published(kept: &[u8], revision: u64) -> Option<Bytes> {
    let at = metadata_start(kept)?;
    let mut out = BytesMut::with_capacity(kept.len() + 40);
    out.extend_from_slice(&kept[..at]);
    push_version(&mut out, revision);
    let rest = &kept[at..];
    if rest.first() != Some(&b'}') {
        out.extend_from_slice(b",");
    }
    out.extend_from_slice(rest);
    Some(out.freeze())
}

/// Published bytes with another revision.
pub fn republished(json: &[u8], revision: u64) -> Option<Bytes> {
    let at = metadata_start(json)?;
    let rest = json[at..].strip_prefix(RESOURCE_VERSION)?;
    let end = memchr_quote(rest)?;
    let mut out = BytesMut::with_capacity(json.len() + 20);
    out.extend_from_slice(&json[..at]);
    push_version(&mut out, revision);
    out.extend_from_slice(&rest[end + 1..]);
    Some(out.freeze())
}

fn memchr_quote(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| *byte == b'"')
}

fn push_version(out: &mut BytesMut, revision: u64) {
    out.extend_from_slice(RESOURCE_VERSION);
    let mut buffer = [0_u8; 20];
    let mut at = buffer.len();
    let mut rest = revision;
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&buffer[at..]);
    out.extend_from_slice(b"\"");
}

/// Where the text of `apiVersion` is.
fn api_version_range(json: &[u8]) -> Option<std::ops::Range<usize>> {
    const KEY: &[u8] = b"\"apiVersion\":\"";
    let head = json.get(..json.len().min(HEAD_LEN_MAX))?;
    let at = head.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    Some(at..at + memchr_quote(&json[at..])?)
}

/// The `apiVersion` of published or kept bytes.
pub fn api_version(json: &[u8]) -> Option<&[u8]> {
    json.get(api_version_range(json)?)
}

/// Published or kept bytes with another `apiVersion`.
pub fn with_api_version(json: &[u8], api_version: &str) -> Option<Bytes> {
    let std::ops::Range { start: at, end } = api_version_range(json)?;
    let mut out = BytesMut::with_capacity(json.len() + api_version.len());
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(api_version.as_bytes());
    out.extend_from_slice(&json[end..]);
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kept_bytes_are_published_and_republished_without_decoding() {
        let object = json!({"a": 1, "apiVersion": "v1", "kind": "X", "metadata": {"annotations": {"x": "\"metadata\":{"}, "name": "n", "resourceVersion": "5"}, "z": []});
        let kept = kept(&object);
        assert!(kept.starts_with(br#"{"kind":"X","apiVersion":"v1","metadata":{"annotations""#));
        for revision in [0, 7, u64::MAX] {
            let published = published(&kept, revision).unwrap();
            let again = republished(&published, 42).unwrap();
            for (bytes, version) in [(published, revision), (again, 42)] {
                let mut expect = object.clone();
                expect["metadata"]["resourceVersion"] = version.to_string().into();
                assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), expect);
            }
        }
        let other = with_api_version(&kept, "apps/v1").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&other).unwrap()["apiVersion"], "apps/v1");
    }

    #[test]
    fn metadata_may_be_empty() {
        let bytes = published(&kept(&json!({"kind": "X", "apiVersion": "v1"})), 3).unwrap();
        assert_eq!(&bytes[..], br#"{"kind":"X","apiVersion":"v1","metadata":{"resourceVersion":"3"}}"#);
    }
}
