//! Strategic merge patch against what upstream's code makes of the same patches.

mod common;

use api::patch::strategic;
use api::schema::Schema;
use serde_json::Value;

#[test]
fn patches_give_what_upstream_gives() {
    let schema = Schema::published();
    for line in common::lines("strategic") {
        let mut vector: Value = serde_json::from_str(&line).expect("JSON");
        let kind = vector["kind"].as_str().expect("kind").to_owned();
        let id = schema.kind(if kind == "Pod" { "" } else { "apps" }, "v1", &kind).expect("kind");
        let patch = vector["patch"].take();
        match (strategic::apply(schema, id, vector["live"].take(), patch.clone()), vector["error"].as_str()) {
            (Ok(result), None) => assert_eq!(result, vector["result"], "{patch}"),
            (Err(api::patch::PatchError::DoesNotApply { reason }), Some(expect)) => {
                assert_eq!(reason, expect, "{patch}")
            }
            (Err(error), Some(expect)) => assert_eq!(error.to_string(), expect, "{patch}"),
            (result, expect) => panic!("{patch}: {result:?}, upstream says {expect:?}"),
        }
    }
}
