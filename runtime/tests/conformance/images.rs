//! Images: imported, shared, refused, removed.

use crate::bench::*;
use runtime::*;
use std::io::Write;

async fn import(bench: &Bench, bytes: &[u8]) -> Result<Vec<Image>> {
    let path = bench.directory.join("other.tar");
    std::fs::write(&path, bytes).unwrap();
    bench.runtime().import_images(&path).await
}

fn layer_count(bench: &Bench) -> usize {
    std::fs::read_dir(bench.directory.join("data/layers")).unwrap().count()
}

#[tokio::test]
async fn layers_hide_and_replace() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let (_, text) =
        bench.run(&["read", "/etc/motd", "list", "/gone", "list", "/opaque", "env", "FROM"]).await;
    assert_eq!(text, "above\n\nabove\nimage");
    bench.finish().await;
}

#[tokio::test]
async fn names_ids_and_removal() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let runtime = bench.runtime();
    let image = runtime.image(IMAGE).await.unwrap().unwrap();
    assert_eq!(image.names, [IMAGE]);
    assert_eq!(image.config.entrypoint, ["/probe"]);
    for name in [image.id.as_str(), image.id.trim_start_matches("sha256:")] {
        assert_eq!(runtime.image(name).await.unwrap().unwrap().id, image.id);
    }
    assert_eq!(runtime.image("nosuch").await.unwrap(), None);
    let shared = Layer::new().file("shared", b"1", 0o644).bytes();
    let config = serde_json::json!({});
    let one = import(&bench, &archive("one:1", config.clone(), std::slice::from_ref(&shared))).await.unwrap();
    let own = Layer::new().file("own", b"2", 0o644).bytes();
    let two = import(&bench, &archive("two", config, &[shared, own])).await.unwrap();
    assert_eq!(one[0].layers[0], two[0].layers[0]);
    assert_eq!(layer_count(&bench), 4);
    assert!(runtime.image_usage().await.unwrap().bytes > 0);
    runtime.remove_image("docker.io/library/two:latest").await.unwrap();
    assert_eq!(layer_count(&bench), 3);
    runtime.remove_image(&one[0].id).await.unwrap();
    assert_eq!(layer_count(&bench), 2);
    // A name has one image, the newest.
    let newer =
        archive("one:1", serde_json::json!({"Cmd": ["x"]}), &[Layer::new().file("n", b"", 0o644).bytes()]);
    import(&bench, &newer).await.unwrap();
    let newest =
        archive("one:1", serde_json::json!({"Cmd": ["y"]}), &[Layer::new().file("n", b"", 0o644).bytes()]);
    let newest = import(&bench, &newest).await.unwrap();
    assert_eq!(runtime.image("one:1").await.unwrap().unwrap().id, newest[0].id);
    bench.finish().await;
}

#[tokio::test]
async fn images_in_use_stay() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let id = bench.start(&sandbox, spec(&["hang"])).await;
    assert!(matches!(bench.runtime().remove_image(IMAGE).await, Err(Error::ImageInUse { .. })));
    bench.runtime().kill_container(&id, libc::SIGKILL).await.unwrap();
    bench.ended(&id).await;
    bench.runtime().remove_image(IMAGE).await.unwrap();
    assert_eq!(layer_count(&bench), 2, "an ended container still stands on them");
    bench.finish().await;
}

#[tokio::test]
async fn bad_archives_are_refused_as_a_whole() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let before = bench.runtime().images().await.unwrap();
    let good = Layer::new().file("a", &[7; 10_000], 0o644).bytes();
    let check = async |bytes: &[u8], expect: &str| {
        let error = import(&bench, bytes).await.unwrap_err();
        assert!(matches!(error, Error::BadImage { .. }), "{error}");
        assert!(error.to_string().contains(expect), "{error}");
        assert_eq!(bench.runtime().images().await.unwrap(), before);
        assert_eq!(layer_count(&bench), 2);
        assert_eq!(std::fs::read_dir(bench.directory.join("data/tmp")).unwrap().count(), 0);
    };
    let config = serde_json::json!({});
    let whole = archive("bad", config.clone(), std::slice::from_ref(&good));
    check(&whole[..whole.len() / 2], "truncated").await;
    check(b"", "truncated").await;
    check(&[0; 2048], "neither index.json nor manifest.json").await;
    check(&[b'x'; 2048], "number").await;
    let mut changed = whole.clone();
    let at = changed.windows(100).position(|w| w == [7; 100]).unwrap();
    changed[at] = 8;
    check(&changed, "its content has the digest").await;
    let mut climbing = tar::Header::new_gnu();
    climbing.set_size(0);
    climbing.as_old_mut().name[..9].copy_from_slice(b"../../etc");
    climbing.set_cksum();
    let mut layer = climbing.as_bytes().to_vec();
    layer.extend([0; 1024]);
    check(&archive("bad", config.clone(), &[layer]), "leads out of the layer").await;
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    compressed.write_all(&whole).unwrap();
    let compressed = compressed.finish().unwrap();
    check(&compressed[..compressed.len() - 20], "").await;
    assert_eq!(import(&bench, &compressed).await.unwrap()[0].names, ["docker.io/library/bad:latest"]);
    bench.finish().await;
}

#[tokio::test]
async fn imported_images_stand_in_for_a_registry_that_is_not_there() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    // A port that refuses connections: bound here, and not listening.
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: std::net::SocketAddr = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
    let name = format!("127.0.0.1:{}/app:1", address.port());
    let request = PullRequest { reference: name.clone(), ..PullRequest::default() };
    let error = bench.runtime().pull_image(request.clone()).await.unwrap_err();
    assert!(matches!(error, Error::RegistryUnavailable { .. }), "{error}");
    import(&bench, &archive(&name, serde_json::json!({}), &[Layer::new().bytes()])).await.unwrap();
    let pulled = bench.runtime().pull_image(request).await.unwrap();
    assert_eq!((pulled.from, &pulled.image.names), (PulledFrom::Imported, &vec![name.clone()]));
    assert_eq!(bench.runtime().resolve_image(&name).await.unwrap(), name, "such an archive has no digest");
    let other = bench.runtime().resolve_image(&name.replace(":1", ":2")).await.unwrap_err();
    assert!(matches!(other, Error::RegistryUnavailable { .. }), "{other}");
    let bad = PullRequest { reference: "NOT valid".to_owned(), ..PullRequest::default() };
    assert!(matches!(bench.runtime().pull_image(bad).await, Err(Error::InvalidReference { .. })));
    bench.finish().await;
}

#[tokio::test]
async fn images_can_be_mounted() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let layer = Layer::new().file("dir/file", b"from an image", 0o644).bytes();
    import(&bench, &archive("volume", serde_json::json!({}), &[layer])).await.unwrap();
    let mount = |subpath: Option<&str>| Mount {
        source: MountSource::Image("volume".to_owned()),
        subpath: subpath.map(Into::into),
        ..bind("/".as_ref(), "/vol", true)
    };
    let words = ["read", "/vol/dir/file", "write", "/vol/x", "1"];
    let (_, text) = bench.run_with(&words, |spec| spec.mounts = vec![mount(None)]).await;
    assert_eq!(text, "from an image\nerrno 30");
    let (_, text) =
        bench.run_with(&["read", "/vol/file"], |spec| spec.mounts = vec![mount(Some("dir"))]).await;
    assert_eq!(text, "from an image");
    bench.finish().await;
}

#[tokio::test]
async fn writable_layers_are_measured() {
    if !can_run() {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox().await;
    let big = "x".repeat(100_000);
    let id = bench.start(&sandbox, spec(&["write", "/tmp/big", &big])).await;
    bench.ended(&id).await;
    let usage = bench.runtime().container_disk(&id).await.unwrap();
    assert!(usage.bytes >= 100_000 && usage.inodes >= 2, "{usage:?}");
    bench.finish().await;
}
