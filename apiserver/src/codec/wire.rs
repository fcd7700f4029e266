//! Values to bytes and back, in every media type.

use super::body;
use super::negotiate::{Media, Wanted, not_acceptable};
use api::decode::{self, Decoded, Format, Target};
use api::{Status, protobuf};
use bytes::Bytes;
use serde_json::Value;

/// What bodies may be.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// A value in the wanted encoding.
///
/// # Errors
/// It cannot be encoded that way.
pub fn encode(value: &Value, wanted: Wanted) -> Result<Bytes, Status> {
    match wanted.media {
        Media::Json if wanted.pretty => {
            let mut bytes = serde_json::to_vec_pretty(value).map_err(Status::internal)?;
            bytes.push(b'\n');
            Ok(bytes.into())
        }
        Media::Json => serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal),
        Media::Protobuf => protobuf::encode(value).map(Bytes::from).map_err(|_| not_acceptable()),
        Media::Yaml => serde_saphyr::to_string(value).map(Bytes::from).map_err(|_| not_acceptable()),
    }
}

/// The media type of a request's body.
///
/// # Errors
/// 415 where it is none of ours.
pub fn media_of(media_type: &str) -> Result<Media, Status> {
    match media_type {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
        _ => Err(body::unsupported(ACCEPTED)),
    }
}

/// A body as a value with what is unknown or repeated in it; `api_version` and `kind` are what it is if it does not say.
///
/// # Errors
/// 400 where it cannot be read, 415 where its media type is none of ours.
pub fn read(media: Media, bytes: &[u8], api_version: &str, kind: &str) -> Result<Decoded, Status> {
    let format = match media {
        Media::Json => Format::Json,
        Media::Yaml => Format::Yaml,
        Media::Protobuf => {
            let value = protobuf::decode_as(bytes, api_version, kind)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            return Ok(Decoded { value, strict_errors: Vec::new() });
        }
    };
    decode::object(bytes, format, Target::new(api_version, kind))
}

/// A watch event as protobuf: its length in four bytes, then itself.
///
/// # Errors
/// The object cannot be encoded.
pub fn watch_frame(kind: &str, object: &Value) -> Result<Bytes, Status> {
    let object = protobuf::encode(object).map_err(Status::internal)?;
    Ok(protobuf::watch_frame(kind, &object).into())
}
