//! The committed vectors: what upstream's own code answers (`xtask/codegen/vectors.go`).

use serde_json::Value;
use std::io::Read;

/// The lines of a packed file.
pub fn lines(name: &str) -> Vec<String> {
    let path = format!("{}/tests/vectors/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(path).expect("vectors are committed");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("vectors unpack");
    text.lines().map(str::to_owned).collect()
}

/// Removes nulls from objects: Go writes nil lists and times as null, we leave them out.
#[allow(dead_code)]
pub fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}
