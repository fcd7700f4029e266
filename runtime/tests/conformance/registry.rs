//! Pulling, from a registry that is made here, in a network of its own.

use crate::bench::*;
use runtime::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What it serves, by path, and what was asked of it.
#[derive(Default)]
struct Registry {
    content: BTreeMap<String, (String, Vec<u8>)>,
    /// `Basic …`, where it wants credentials.
    credentials: Option<String>,
    asked: Vec<String>,
}

impl Registry {
    fn blob(&mut self, bytes: Vec<u8>) -> (String, usize) {
        let (digest, length) = (format!("sha256:{}", digest(&bytes)), bytes.len());
        self.content
            .insert(format!("/v2/team/app/blobs/{digest}"), ("application/octet-stream".into(), bytes));
        (digest, length)
    }

    fn manifest(&mut self, kind: &str, names: &[&str], value: &serde_json::Value) -> (String, usize) {
        let bytes = serde_json::to_vec(value).unwrap();
        let (digest, length) = (format!("sha256:{}", digest(&bytes)), bytes.len());
        for name in names.iter().copied().chain([digest.as_str()]) {
            let path = format!("/v2/team/app/manifests/{name}");
            self.content.insert(path, (format!("application/vnd.oci.image.{kind}.v1+json"), bytes.clone()));
        }
        (digest, length)
    }

    /// An image under a tag; its layers are compressed in different ways.
    fn image(&mut self, tag: &str, layers: &[Vec<u8>], broken: bool) -> String {
        let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
        let config = json!({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/probe"]}, "rootfs": {"diff_ids": ids}});
        let (config, config_size) = self.blob(serde_json::to_vec(&config).unwrap());
        let mut entries = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let packed = match index % 3 {
                0 => {
                    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    gzip.write_all(layer).unwrap();
                    gzip.finish().unwrap()
                }
                1 => zstd::encode_all(layer.as_slice(), 1).unwrap(),
                _ => layer.clone(),
            };
            let (digest, size) = self.blob(packed);
            if broken {
                let path = format!("/v2/team/app/blobs/{digest}");
                self.content.get_mut(&path).unwrap().1[20] ^= 1;
            }
            entries.push(json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}));
        }
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": config_size}, "layers": entries});
        let (inner, size) = self.manifest("manifest", &[], &manifest);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            {"mediaType": kind, "digest": format!("sha256:{}", "0".repeat(64)), "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": kind, "digest": inner, "size": size, "platform": {"os": "linux", "architecture": "amd64"}}]});
        self.manifest("index", &[tag], &index).0
    }
}

async fn answer(registry: Arc<Mutex<Registry>>, mut stream: TcpStream) {
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
        received.extend_from_slice(&buffer[..length]);
        while let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(received.drain(..end + 4).collect()).unwrap();
            let reply = reply(&mut registry.lock().unwrap(), &head);
            if stream.write_all(&reply).await.is_err() {
                return;
            }
        }
    }
}

fn reply(registry: &mut Registry, head: &str) -> Vec<u8> {
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    registry.asked.push(path.to_owned());
    let given = head.lines().find_map(|line| {
        line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))
    });
    let allowed =
        registry.credentials.as_deref().is_none_or(|wanted| given.is_some_and(|(_, value)| value == wanted));
    let (status, kind, body) = match (allowed, path, registry.content.get(path)) {
        (false, ..) => {
            ("401 Unauthorized", "application/json", br#"{"errors":[{"code":"UNAUTHORIZED"}]}"#.to_vec())
        }
        (_, "/v2/", _) => ("200 OK", "application/json", b"{}".to_vec()),
        (_, _, Some((kind, body))) => ("200 OK", kind.as_str(), body.clone()),
        _ => ("404 Not Found", "application/json", br#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#.to_vec()),
    };
    let challenge = if allowed { "" } else { "WWW-Authenticate: Basic realm=\"test\"\r\n" };
    let mut text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{challenge}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if method != "HEAD" {
        text.extend(body);
    }
    text
}

/// Runs a test in a network namespace with nothing but a loopback device.
#[allow(unsafe_code)]
fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: only this thread (and those that it starts) moves, and the request names an interface in a buffer of the right size.
        unsafe {
            rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET).unwrap();
            let mut request: libc::ifreq = std::mem::zeroed();
            request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
            request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
            let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request), 0);
            libc::close(socket);
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

async fn serve() -> (Arc<Mutex<Registry>>, String) {
    let registry = Arc::new(Mutex::new(Registry::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let served = registry.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(served.clone(), stream));
        }
    });
    (registry, host)
}

fn request(reference: &str) -> PullRequest {
    PullRequest { reference: reference.to_owned(), ..PullRequest::default() }
}

#[test]
fn images_are_pulled_and_run() {
    if !can_run() {
        return;
    }
    in_own_network(|| async {
        let bench = Bench::new().await;
        let (registry, host) = serve().await;
        let name = format!("{host}/team/app:1");
        let layers = [
            Layer::new().file("probe", probe(), 0o755).bytes(),
            Layer::new().file("two", b"2", 0o644).bytes(),
            Layer::new().file("three", b"3", 0o644).bytes(),
        ];
        let digest = registry.lock().unwrap().image("1", &layers, false);
        let (progress, told) = tokio::sync::watch::channel(PullProgress::default());
        let pulled = bench
            .runtime()
            .pull_image(PullRequest { progress: Some(progress), ..request(&name) })
            .await
            .unwrap();
        assert_eq!((pulled.from, &pulled.image.names), (PulledFrom::Registry, &vec![name.clone()]));
        assert_eq!(pulled.image.digests, [format!("{host}/team/app@{digest}")]);
        let told = *told.borrow();
        assert_eq!((told.layers, told.layers_total, told.bytes), (3, 3, told.bytes_total));
        let (_, text) = bench
            .run_with(&["read", "/two", "read", "/three"], |spec| spec.image = pulled.image.id.clone())
            .await;
        assert_eq!(text, "2\n3");

        let blobs = || registry.lock().unwrap().asked.iter().filter(|path| path.contains("/blobs/")).count();
        let before = blobs();
        let again = bench.runtime().pull_image(request(&pulled.image.digests[0])).await.unwrap();
        assert_eq!(
            (again.image.id, blobs()),
            (pulled.image.id.clone(), before + 1),
            "only the configuration again"
        );
        let moved_to = registry.lock().unwrap().image("1", &layers[..2], false);
        let resolved = bench.runtime().resolve_image(&name).await.unwrap();
        assert_eq!(
            resolved,
            format!("{host}/team/app@{moved_to}"),
            "the registry knows better than what is here"
        );
        assert_eq!(bench.runtime().resolve_image(&resolved).await.unwrap(), resolved);
        let moved = bench.runtime().pull_image(request(&name)).await.unwrap();
        assert_ne!(moved.image.id, pulled.image.id);
        let old = bench.runtime().image(&pulled.image.id).await.unwrap().unwrap();
        assert!(old.names.is_empty() && !old.digests.is_empty());
        bench.finish().await;
    });
}

#[test]
fn registries_say_no() {
    if !can_run() {
        return;
    }
    in_own_network(|| async {
        let bench = Bench::new().await;
        let (registry, host) = serve().await;
        let layer = Layer::new().file("x", &[7; 5000], 0o644).bytes();
        registry.lock().unwrap().image("good", std::slice::from_ref(&layer), false);
        let name = |tag: &str| format!("{host}/team/app:{tag}");
        let pull = async |tag: &str, auth: Vec<Auth>| {
            bench.runtime().pull_image(PullRequest { auth, ..request(&name(tag)) }).await
        };
        let error = pull("nosuch", vec![]).await.unwrap_err();
        assert!(matches!(error, Error::ImageUnknown { .. }), "{error}");

        registry.lock().unwrap().credentials = Some("Basic dXNlcjpwYXNz".to_owned()); // user:pass
        let basic =
            |password: &str| Auth::Basic { username: "user".to_owned(), password: password.to_owned() };
        for auth in [vec![], vec![basic("wrong")]] {
            let error = pull("good", auth).await.unwrap_err();
            assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        }
        pull("good", vec![basic("wrong"), basic("pass")]).await.unwrap();

        registry.lock().unwrap().credentials = None;
        let other = Layer::new().file("y", &[9; 5000], 0o644).bytes();
        registry.lock().unwrap().image("broken", &[layer, other], true);
        let before = bench.runtime().images().await.unwrap();
        pull("broken", vec![]).await.unwrap_err();
        assert_eq!(bench.runtime().images().await.unwrap(), before);

        // An imported name does not stand in for an image that the registry says it does not have.
        let path = bench.directory.join("imported.tar");
        std::fs::write(&path, archive(&name("gone"), json!({}), &[Layer::new().bytes()])).unwrap();
        bench.runtime().import_images(&path).await.unwrap();
        let error = pull("gone", vec![]).await.unwrap_err();
        assert!(matches!(error, Error::ImageUnknown { .. }), "{error}");
        bench.finish().await;
    });
}
