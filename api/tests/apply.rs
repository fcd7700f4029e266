//! Server-side apply against what upstream's field manager makes of the same steps.

mod common;

use api::apply::{self, Set, Types, Writer};
use api::structural::Structural;
use serde_json::Value;

/// Times are not compared; entries come in no order.
fn comparable(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(entries) = object["metadata"]["managedFields"].as_array_mut() {
        for entry in entries.iter_mut() {
            entry.as_object_mut().expect("an entry").remove("time");
        }
        entries.sort_by_key(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            (text("manager"), text("operation"), text("apiVersion"), text("subresource"))
        });
    }
    object
}

fn sorted(causes: &Value) -> Vec<String> {
    let mut causes: Vec<_> = causes.as_array().into_iter().flatten().map(ToString::to_string).collect();
    causes.sort();
    causes
}

fn play(line: &str) {
    let sequence: Value = serde_json::from_str(line).expect("JSON");
    let text = |name: &str| sequence[name].as_str().expect("text").to_owned();
    let (group, version, kind) = (text("group"), text("version"), text("kind"));
    let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
    let custom = [(api_version.clone(), Structural::parse(&sequence["schema"]).into())];
    let types = match apply::published(&api_version, &kind) {
        Some(id) => Types::Published(id),
        None => Types::Custom(&custom),
    };
    let (of_object, of_status) = (Set::of_fields(&[&["status"]]), Set::of_fields(&[&["spec"]]));
    let mut live: Option<Value> = None;
    for (index, step) in sequence["steps"].as_array().expect("steps").iter().enumerate() {
        let subresource = step["subresource"].as_str().unwrap_or_default();
        let writer = Writer {
            manager: step["manager"].as_str().expect("manager"),
            api_version: &api_version,
            kind: &kind,
            subresource,
            now: "2200-01-01T00:00:00Z".parse().expect("later than the vectors"),
            types,
            reset: if subresource == "status" { &of_status } else { &of_object },
        };
        let name = format!("step {index} of {}\n{}\nlive {live:?}", sequence["kind"], step["object"]);
        let result = match step["apply"] == true {
            true => apply::apply(live.as_ref(), &step["object"], step["force"] == true, writer)
                .map(|applied| applied.object),
            false => {
                let mut new = step["object"].clone();
                apply::update(live.as_ref(), &mut new, writer);
                Ok(new)
            }
        };
        match (result, step["error"].as_str()) {
            (Ok(mut object), None) => {
                object["metadata"]["uid"] = "u".into();
                assert_eq!(comparable(&object), comparable(&step["result"]), "{name}");
                live = Some(step["result"].clone());
            }
            // Upstream returns errors of updates that its server swallows.
            (Ok(_), Some(_)) if step["apply"] == false => {}
            (Err(status), Some(error)) => {
                if status.code == 409 {
                    let causes = serde_json::to_value(&status.details.as_ref().expect("details").causes)
                        .expect("JSON");
                    assert_eq!(sorted(&causes), sorted(&step["causes"]), "{name}");
                    let owners = |text: &str| text.matches("conflict").count();
                    assert_eq!(owners(&status.message), owners(error), "{name}");
                    if owners(error) < 3 {
                        assert_eq!(status.message, error, "{name}");
                    }
                } else {
                    assert_eq!(head(&status.message), head(error), "{name}");
                }
            }
            (result, error) => panic!("{name}: {result:?}, upstream says {error:?}"),
        }
    }
}

/// An error about the schema up to Go's form of a value.
fn head(message: &str) -> String {
    message.split(", got ").next().unwrap_or_default().to_owned()
}

#[test]
fn steps_lead_where_upstream_leads() {
    for line in common::lines("apply") {
        play(&line);
    }
}
