//! One suite for all types: make, read, make again, change, remove.

use super::*;
use crate::objects::tests::Fixed;
use crate::observed::tests::at;
use crate::spec::tests::pod;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use token::{Token, TokenFor, Tokens};

struct FixedTokens;

impl Tokens for FixedTokens {
    fn token<'a>(&'a self, wanted: TokenFor, now: Timestamp) -> BoxFuture<'a, Result<Token, VolumeError>> {
        let text = format!("{}/{}/{}", wanted.service_account, wanted.audience, wanted.expiration_seconds);
        Box::pin(async move { Ok(Token { text, refresh_at: now + std::time::Duration::from_secs(60) }) })
    }

    fn forget(&self, _: &str) {}
}

struct Bench {
    root: tempfile::TempDir,
    objects: Fixed,
}

impl Bench {
    fn new() -> Self {
        let objects = Fixed::default();
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AAE="}});
        objects.config_maps.lock().insert("ns/map".into(), serde_json::from_value(map).unwrap());
        let secret = json!({"data": {"user": "YWRtaW4="}});
        objects.secrets.lock().insert("ns/secret".into(), serde_json::from_value(secret).unwrap());
        Self { root: tempfile::tempdir().unwrap(), objects }
    }

    fn directories(&self) -> Directories {
        Directories { disk: self.root.path().join("disk"), memory: self.root.path().join("memory") }
    }

    async fn make(&self, spec: Value, volume: Value, second: i64) -> Result<Mounted, String> {
        let mut spec = spec;
        let mut volume = volume;
        volume["name"] = json!("v");
        spec["containers"] = json!([{"name": "c", "resources": {"limits": {"cpu": "2"}}}]);
        spec["volumes"] = json!([volume]);
        let def = pod(
            json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"l": "x"}}, "spec": spec}),
        );
        let mounting = Mounting {
            def: &def,
            volume: &def.volumes()[0],
            directories: &self.directories(),
            objects: &self.objects,
            facts: &Facts::default(),
            tokens: &FixedTokens,
            memory_capacity_bytes: 1 << 30,
            now: at(second),
        };
        let type_ = type_of(mounting.volume).map_err(|error| error.to_string())?;
        type_.mount(&mounting).await.map_err(|error| error.to_string())
    }
}

/// The files a container would see, with their modes.
fn shown(mounted: &Mounted) -> Vec<(String, String, u32)> {
    let Files::Path(root) = &mounted.files else { return Vec::new() };
    let mut list = Vec::new();
    let mut walk = vec![root.clone()];
    while let Some(directory) = walk.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("..") {
                continue;
            }
            let path = entry.path();
            if path.is_dir() {
                walk.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
            list.push((name, String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(), mode));
        }
    }
    list.sort();
    list
}

async fn check(spec: Value, volume: Value, expect: Result<&[(&str, &str, u32)], &str>) {
    let bench = Bench::new();
    let found = bench.make(spec.clone(), volume.clone(), 1).await.map(|mounted| shown(&mounted));
    let expect =
        expect.map(|list| list.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), *c)).collect());
    assert_eq!(found, expect.map_err(str::to_owned), "{volume}");
    // Making it again changes nothing.
    if let Ok(first) = found {
        assert_eq!(bench.make(spec, volume, 2).await.map(|mounted| shown(&mounted)), Ok(first));
    }
    unmount_all(&bench.directories(), "u").unwrap();
    unmount_all(&bench.directories(), "u").unwrap();
    assert!(!bench.directories().pod("u").exists() && !bench.directories().memory.join("u").exists());
}

#[tokio::test]
async fn config_maps_and_secrets() {
    let all: &[(&str, &str, u32)] = &[("a", "1", 0o644), ("b", "2", 0o644), ("bin", "\0\u{1}", 0o644)];
    check(json!({}), json!({"configMap": {"name": "map"}}), Ok(all)).await;
    check(json!({}), json!({"configMap": {"name": "none"}}), Err("configmap \"none\" not found")).await;
    check(json!({}), json!({"configMap": {"name": "none", "optional": true}}), Ok(&[])).await;
    let items = |key: &str| json!({"configMap": {"name": "map", "defaultMode": 0o400, "items": [{"key": key, "path": "x/y", "mode": 0o440}]}});
    check(json!({}), items("a"), Ok(&[("x/y", "1", 0o440)])).await;
    check(json!({}), items("z"), Err("configmap references non-existent config key: z")).await;
    let escape = json!({"configMap": {"name": "map", "items": [{"key": "a", "path": "../../x"}]}});
    check(json!({}), escape, Err("invalid path: must not contain '..': ../../x")).await;
    let secret = |mode: u32| json!({"secret": {"secretName": "secret", "defaultMode": mode}});
    check(json!({}), secret(0o400), Ok(&[("user", "admin", 0o400)])).await;
    check(json!({"securityContext": {"fsGroup": 1001}}), secret(0o400), Ok(&[("user", "admin", 0o440)]))
        .await;
}

#[tokio::test]
async fn downward_and_projected() {
    let files = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "mode": 0o600, "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]);
    let expect: &[(&str, &str, u32)] = &[("cpu", "2", 0o600), ("labels", "l=\"x\"", 0o644)];
    check(json!({}), json!({"downwardAPI": {"items": files}}), Ok(expect)).await;
    let sources = json!([{"configMap": {"name": "map", "items": [{"key": "a", "path": "cm/a"}]}}, {"secret": {"name": "secret"}},
        {"downwardAPI": {"items": files}}, {"serviceAccountToken": {"path": "token", "audience": "me"}}]);
    let expect: &[(&str, &str, u32)] = &[
        ("cm/a", "1", 0o644),
        ("cpu", "2", 0o600),
        ("labels", "l=\"x\"", 0o644),
        ("token", "default/me/3600", 0o644),
        ("user", "admin", 0o644),
    ];
    check(json!({}), json!({"projected": {"sources": sources}}), Ok(expect)).await;
    let private: &[(&str, &str, u32)] = &[("token", "default//3600", 0o600)];
    let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
    check(json!({"securityContext": {"runAsUser": 1}}), token, Ok(private)).await;
    let both = json!({"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "y"}}]}});
    check(json!({}), both, Err("[configmap \"x\" not found, secret \"y\" not found]")).await;
}

#[tokio::test]
async fn directories_of_the_pod_and_the_machine() {
    let bench = Bench::new();
    let made = bench.make(json!({}), json!({"emptyDir": {}}), 1).await.unwrap();
    let Files::Path(path) = &made.files else { panic!("{made:?}") };
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o777);
    std::fs::write(path.join("kept"), "x").unwrap();
    bench.make(json!({}), json!({"emptyDir": {}}), 2).await.unwrap();
    assert!(path.join("kept").exists());
    let given = bench
        .make(json!({"securityContext": {"fsGroup": 7}}), json!({"hostPath": {"path": path}}), 1)
        .await
        .unwrap();
    assert_eq!(given.files, made.files);
    let at = |type_: &str, name: &str| json!({"hostPath": {"path": path.join(name), "type": type_}});
    let complaint = bench.make(json!({}), at("Directory", "kept"), 1).await.unwrap_err();
    assert!(complaint.ends_with("kept is not a directory"), "{complaint}");
    assert!(bench.make(json!({}), at("File", "kept"), 1).await.is_ok());
    assert!(bench.make(json!({}), at("File", "missing"), 1).await.is_err());
    assert!(bench.make(json!({}), at("FileOrCreate", "new"), 1).await.is_ok());
    assert!(bench.make(json!({}), at("DirectoryOrCreate", "a/b"), 1).await.is_ok());
    assert!(path.join("new").is_file() && path.join("a/b").is_dir());
    assert!(bench.make(json!({}), json!({"nfs": {"path": "/", "server": "s"}}), 1).await.is_err());
}

#[tokio::test]
async fn changes_arrive_as_a_whole_and_what_is_gone_is_gone() {
    let bench = Bench::new();
    let volume = json!({"configMap": {"name": "map", "optional": true}});
    let made = bench.make(json!({}), volume.clone(), 1).await.unwrap();
    let Files::Path(path) = &made.files else { panic!("{made:?}") };
    let before = std::fs::read_link(path.join("..data")).unwrap();
    bench.make(json!({}), volume.clone(), 2).await.unwrap();
    assert_eq!(std::fs::read_link(path.join("..data")).unwrap(), before, "nothing changed");
    let map = json!({"data": {"a": "changed", "c": "new"}});
    bench.objects.config_maps.lock().insert("ns/map".into(), serde_json::from_value(map).unwrap());
    bench.make(json!({}), volume.clone(), 3).await.unwrap();
    let names = |list: Vec<(String, String, u32)>| {
        list.into_iter().map(|(name, text, _)| format!("{name}={text}")).collect::<Vec<_>>()
    };
    assert_eq!(names(shown(&made)), ["a=changed", "c=new"]);
    assert!(!path.join(before).exists(), "old versions are removed");
    bench.objects.config_maps.lock().clear();
    bench.make(json!({}), volume, 4).await.unwrap();
    assert_eq!(shown(&made), []);
}

#[test]
fn references_are_what_the_pod_uses() {
    let def = pod(json!({"metadata": {"namespace": "ns"}, "spec": {"containers": [], "volumes": [
        {"name": "a", "configMap": {"name": "m"}}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "emptyDir": {}},
        {"name": "d", "projected": {"sources": [{"configMap": {"name": "n"}}, {"downwardAPI": {}}]}}]}}));
    let names: Vec<String> = references(&def).into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["m", "s", "n"]);
    assert!(shows_pod(&def));
}
