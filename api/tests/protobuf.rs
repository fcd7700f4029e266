//! The protobuf codec against bytes that upstream's code wrote.

mod common;

use api::protobuf;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

fn vectors() -> Vec<(Value, Vec<u8>)> {
    let split = |line: String| {
        let (json, bytes) = line.split_once('\t').expect("two columns");
        (serde_json::from_str(json).expect("JSON"), STANDARD.decode(bytes).expect("base64"))
    };
    common::lines("protobuf").into_iter().map(split).collect()
}

#[test]
fn every_kind_is_encoded_byte_for_byte_as_upstream_does() {
    for (object, bytes) in vectors() {
        let name = format!("{} {}", object["apiVersion"], object["kind"]);
        let encoded = protobuf::encode(&object).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(encoded == bytes, "{name}: {} bytes, upstream wrote {}", encoded.len(), bytes.len());
    }
}

#[test]
fn every_kind_is_decoded_to_the_json_that_upstream_shows() {
    for (object, bytes) in vectors() {
        let name = format!("{} {}", object["apiVersion"], object["kind"]);
        // What the protobuf itself cannot say (nil or empty) is not compared: encode again and compare bytes.
        let decoded = protobuf::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut expect = object;
        common::without_nulls(&mut expect);
        assert_eq!(decoded, expect, "{name}");
        assert!(protobuf::encode(&decoded).expect("encodes") == bytes, "{name}");
    }
}

#[test]
fn damaged_input_is_an_error_or_another_object_and_nothing_worse() {
    let vectors = vectors();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for (_, bytes) in vectors.iter().step_by(7) {
        for cut in (0..bytes.len()).step_by(13) {
            let _ = protobuf::decode(&bytes[..cut]);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let mut changed = bytes.clone();
            changed[cut] = (seed >> 40) as u8;
            let _ = protobuf::decode(&changed);
        }
    }
}

#[test]
fn nesting_is_bounded() {
    let mut schema = json!({"type": "object"});
    for _ in 0..200 {
        schema = json!({"not": schema});
    }
    let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": {"versions": [
        {"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    assert_eq!(protobuf::encode(&object), Err(protobuf::ProtobufError::TooDeep));
}

#[test]
fn a_list_is_put_together_from_encoded_items() {
    let pod = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}});
    let items: Vec<_> = ["a", "b"].map(|name| protobuf::encode(&pod(name)).expect("encodes")).into();
    let metadata = json!({"resourceVersion": "5"});
    let list =
        protobuf::encode_list("v1", "PodList", &metadata, items.iter().map(Vec::as_slice)).expect("encodes");
    let whole =
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": [pod("a"), pod("b")]});
    assert_eq!(list, protobuf::encode(&whole).expect("encodes"));
}

#[test]
fn a_watch_frame_is_a_length_and_an_event_around_an_object() {
    let object = protobuf::encode(&json!({"apiVersion": "v1", "kind": "Pod"})).expect("encodes");
    let frame = protobuf::watch_frame("ADDED", &object);
    assert_eq!(u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize, frame.len() - 4);
    assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
    assert!(frame.ends_with(&object));
}

#[test]
fn what_has_no_protobuf_form_says_so() {
    let check =
        |api_version, kind, expect| assert_eq!(protobuf::is_supported(api_version, kind), expect, "{kind}");
    check("v1", "Pod", true);
    check("meta.k8s.io/v1", "Table", false);
    check("meta.k8s.io/v1", "PartialObjectMetadata", true);
    check("example.com/v1", "Foo", false);
    check("apps/v1", "DeleteOptions", true);
}
