//! The admission plugins of the built-in kinds inside a server: what only a whole pipeline shows.

mod common;

use apiserver::hooks::Pure;
use common::Api;
use serde_json::{Value, json};
use std::sync::Arc;

async fn api() -> Api {
    let api = Api::built(|builder| {
        // Backwards: the server puts them in order.
        let plugins = resources::admission::chain().into_iter().rev();
        let builder = builder.resources(resources::all());
        plugins.fold(builder, |builder, plugin| builder.admission(Arc::new(Pure(plugin))))
    })
    .await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "a"}})).await.expect(201);
    api
}

const MAPS: &str = "/api/v1/namespaces/a/configmaps";
const PODS: &str = "/api/v1/namespaces/a/pods";
const QUOTAS: &str = "/api/v1/namespaces/a/resourcequotas";

/// A quota whose status says that nothing is used.
async fn quota(api: &Api, hard: Value) {
    let used: serde_json::Map<_, _> =
        hard.as_object().unwrap().keys().map(|name| (name.clone(), json!("0"))).collect();
    api.post(QUOTAS, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await.expect(201);
    let status = json!({"status": {"hard": hard, "used": used}});
    api.merge(&format!("{QUOTAS}/q/status"), status).await.expect(200);
}

#[tokio::test]
async fn requests_at_once_do_not_exceed_a_quota() {
    let api = api().await;
    quota(&api, json!({"count/configmaps": "5"})).await;
    let posts = (0..20).map(|at| api.post(MAPS, json!({"metadata": {"name": format!("m{at}")}})));
    let codes: Vec<u16> = futures::future::join_all(posts).await.iter().map(|answer| answer.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == 403).count(), 15, "{codes:?}");
    let left = api.get(MAPS).await.expect(200);
    api.call("DELETE", &format!("{MAPS}/{}", common::names(&left)[0]), Value::Null).await.expect(200);
    // What is deleted is free at once, whatever the quota's status says.
    let again = json!({"metadata": {"generateName": "again-"}});
    api.post(MAPS, again.clone()).await.expect(201);
    let refused = api.post(MAPS, again).await.expect(403);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.ends_with(
            "is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=5, limited: count/configmaps=5"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn defaults_of_a_namespace_count_towards_its_quota() {
    let api = api().await;
    let limits = json!({"limits": [{"type": "Container", "defaultRequest": {"cpu": "2"}}]});
    let ranges = "/api/v1/namespaces/a/limitranges";
    api.post(ranges, json!({"metadata": {"name": "r"}, "spec": limits})).await.expect(201);
    quota(&api, json!({"requests.cpu": "3"})).await;
    let account = json!({"metadata": {"name": "default"}});
    api.post("/api/v1/namespaces/a/serviceaccounts", account).await.expect(201);
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = api.post(PODS, pod("one")).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "2");
    let refused = api.post(PODS, pod("two")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"two\" is forbidden: exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=2, limited: requests.cpu=3"
    );
}

#[tokio::test]
async fn pods_wait_for_the_default_account_of_a_new_namespace() {
    let api = api().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let accounts = "/api/v1/namespaces/a/serviceaccounts";
    let (made, account) = tokio::join!(api.post(PODS, pod), async {
        tokio::task::yield_now().await;
        api.post(accounts, json!({"metadata": {"name": "default"}})).await
    });
    account.expect(201);
    assert_eq!(made.expect(201)["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn a_namespace_that_is_missing_or_going_takes_nothing() {
    let api = api().await;
    let map = json!({"metadata": {"name": "m"}});
    let missing = api.post("/api/v1/namespaces/none/configmaps", map.clone()).await.expect(404);
    assert_eq!(missing["message"], "namespaces \"none\" not found");
    api.call("DELETE", "/api/v1/namespaces/a", Value::Null).await.expect(200);
    let refused = api.post(MAPS, map).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
}
