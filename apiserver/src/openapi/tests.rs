use super::*;
use api::Scope;

fn rows() -> Vec<Resource> {
    vec![
        Resource::new("", "v1", "Pod", "pods", Scope::Namespaced).status(),
        Resource::new("apps", "v1", "Deployment", "deployments", Scope::Namespaced).status().scale(None),
        Resource::new("stable.example.com", "v1", "Crab", "crabs", Scope::Namespaced),
    ]
}

fn text(document: &Document) -> Value {
    serde_json::from_slice(&expand(&document.compressed).unwrap()).unwrap()
}

#[test]
fn the_second_form_is_whole() {
    let rows = rows();
    let rows: Vec<_> = rows.iter().collect();
    let published = published_part(None, &rows);
    let document = text(&second(&published, &rows, false).unwrap());
    assert_eq!(document["swagger"], "2.0");
    let all = document.to_string();
    for part in all.split("\"#/").skip(1) {
        let pointer = format!("/{}", part.split('"').next().unwrap());
        assert!(document.pointer(&pointer).is_some(), "{pointer} is not there");
    }
    assert!(document["definitions"]["com.example.stable.v1.CrabList"].is_object());
    let again = published_part(Some(published.clone()), &rows[..2]);
    assert!(Arc::ptr_eq(&published, &again));
}

#[test]
fn the_third_form_is_whole_and_its_index_names_it() {
    let rows = rows();
    let rows: Vec<_> = rows.iter().collect();
    let index = text(&index(&rows, &Table::default()));
    let paths = index["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["api/v1", "apis/apps/v1", "apis/stable.example.com/v1"]);
    for (path, entry) in paths {
        let made = third(path, &rows).unwrap();
        assert_eq!(entry["serverRelativeURL"], format!("/openapi/v3/{path}?hash={}", made.hash));
        let document = text(&made);
        let all = document.to_string();
        for part in all.split("\"#/").skip(1) {
            let pointer = format!("/{}", part.split('"').next().unwrap());
            assert!(document.pointer(&pointer).is_some(), "{path}: {pointer} is not there");
        }
    }
    assert!(third("apis/none/v1", &rows).is_none());
}

#[test]
fn what_clients_accept() {
    let check = |accept, expect| assert_eq!(accepted_second(accept), expect, "{accept}");
    check("application/json", Some(false));
    check("*/*", Some(false));
    check(PROTOBUF_ASKED, Some(true));
    check("application/com.github.proto-openapi.spec.v2.v1.0+protobuf,application/json", Some(true));
    check("text/html", None);
}
