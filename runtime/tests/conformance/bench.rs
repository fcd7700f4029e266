//! A runtime to test, an image for it, and the check that nothing is left.

use futures::StreamExt;
use runtime::*;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The name of the test image.
pub const IMAGE: &str = "example.test/probe:1";

/// Whether these tests can run. They say so when they cannot: a green run without root proves nothing.
pub fn can_run() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("NOT RUN: this test makes namespaces and control groups, which only root may");
    }
    root
}

/// The probe program, compiled once.
pub fn probe() -> &'static [u8] {
    static PROBE: OnceLock<Vec<u8>> = OnceLock::new();
    PROBE.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe/program.rs");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}", std::process::id()));
        let mut rustc = std::process::Command::new("rustc");
        rustc.args([
            "--edition=2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "strip=symbols",
            "-C",
            "panic=abort",
        ]);
        let output = rustc.arg(&source).arg("-o").arg(&out).output().expect("rustc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let program = std::fs::read(&out).unwrap();
        std::fs::remove_file(out).unwrap();
        program
    })
}

/// Members of a layer.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn file(mut self, path: &str, content: &[u8], mode: u32) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        self.0.append_link(&mut header, path, target).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A `docker save` archive of one image.
pub fn archive(name: &str, config: serde_json::Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", digest(layer))).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_name = format!("{}.json", digest(&config));
    let names: Vec<String> = (0..layers.len()).map(|index| format!("{index}/layer.tar")).collect();
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": [name], "Layers": names}]);
    let mut whole = Layer::new().file(&config_name, &config, 0o644);
    for (name, layer) in names.iter().zip(layers) {
        whole = whole.file(name, layer, 0o644);
    }
    whole.file("manifest.json", &serde_json::to_vec(&manifest).unwrap(), 0o644).bytes()
}

/// The test image: the probe, some accounts, things that a second layer hides.
fn image() -> Vec<u8> {
    let below = Layer::new()
        .file("probe", probe(), 0o755)
        .file("etc/passwd", b"root:x:0:0::/root:/\nweb:x:1000:2000::/home/web:/\n", 0o644)
        .file("etc/group", b"root:x:0:\nweb:x:2000:\nextra:x:3000:web\n", 0o644)
        .file("etc/motd", b"below\n", 0o644)
        .file("gone/file", b"x", 0o644)
        .file("opaque/below", b"x", 0o644)
        .file("plain", b"not a program", 0o644)
        .file("script", b"#!/nosuchinterpreter\n", 0o755)
        .link("escape", "/")
        .file("tmp/keep", b"", 0o644);
    let above = Layer::new()
        .file("etc/motd", b"above\n", 0o644)
        .file("gone/.wh.file", b"", 0o644)
        .file("opaque/.wh..wh..opq", b"", 0o644)
        .file("opaque/above", b"x", 0o644);
    let config = serde_json::json!({"Entrypoint": ["/probe"], "Cmd": ["print", "default"], "Env": ["FROM=image", "PATH=/bin:/"]});
    archive(IMAGE, config, &[below.bytes(), above.bytes()])
}

/// A runtime of its own.
pub struct Bench {
    /// Gone once everything in it is known to be.
    pub directory: PathBuf,
    pub cgroup: String,
    runtime: Option<Engine>,
}

impl Bench {
    /// With the test image in it.
    pub async fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap().keep();
        let cgroup = format!("/clipper-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let bench = Self { runtime: Some(Self::open(&directory).await), directory, cgroup };
        let path = bench.directory.join("image.tar");
        std::fs::write(&path, image()).unwrap();
        bench.runtime().import_images(&path).await.unwrap();
        bench
    }

    pub fn runtime(&self) -> &Engine {
        self.runtime.as_ref().expect("only missing while it is reopened")
    }

    async fn open(directory: &Path) -> Engine {
        Engine::open(EngineConfig { directory: directory.join("data"), ..EngineConfig::default() })
            .await
            .unwrap()
    }

    /// Drops the runtime as a crash would, and opens the directory anew.
    pub async fn reopen(&mut self) {
        drop(self.runtime.take());
        let lock = self.directory.join("data/runtime.lock");
        // Tasks of the old one let go of the lock when they next run.
        loop {
            let file = std::fs::File::open(&lock).unwrap();
            if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.runtime = Some(Self::open(&self.directory).await);
    }

    pub fn sandbox_spec(&self) -> SandboxSpec {
        static MADE: AtomicU32 = AtomicU32::new(0);
        SandboxSpec {
            hostname: Some("box".to_owned()),
            cgroup: format!("{}/{}", self.cgroup, MADE.fetch_add(1, Ordering::Relaxed)),
            ..SandboxSpec::default()
        }
    }

    pub async fn sandbox(&self) -> String {
        self.runtime().create_sandbox(self.sandbox_spec()).await.unwrap()
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.directory.join("logs").join(name)
    }

    /// Starts the probe.
    pub async fn start(&self, sandbox: &str, spec: ContainerSpec) -> String {
        let id = self.runtime().create_container(sandbox, spec).await.unwrap();
        self.runtime().start_container(&id).await.unwrap();
        id
    }

    /// The status once it has ended.
    pub async fn ended(&self, id: &str) -> ContainerStatus {
        let mut events = self.runtime().events();
        loop {
            let status = self.runtime().container(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            events.next().await.expect("events do not end");
        }
    }

    /// Runs the probe with these words in a sandbox of its own; its exit and its log without stamps.
    pub async fn run(&self, words: &[&str]) -> (Exit, String) {
        self.run_with(words, |_| {}).await
    }

    pub async fn run_with(&self, words: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> (Exit, String) {
        let sandbox = self.sandbox().await;
        let result = self.run_in(&sandbox, words, change).await;
        self.runtime().remove_sandbox(&sandbox).await.unwrap();
        result
    }

    pub async fn run_in(
        &self,
        sandbox: &str,
        words: &[&str],
        change: impl FnOnce(&mut ContainerSpec),
    ) -> (Exit, String) {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let log = self.log(&format!("run-{}", MADE.fetch_add(1, Ordering::Relaxed)));
        let mut spec = spec(words);
        spec.log_path = Some(log.clone());
        change(&mut spec);
        let id = self.start(sandbox, spec).await;
        let exit = self.ended(&id).await.exit.unwrap();
        self.runtime().remove_container(&id).await.unwrap();
        (exit, plain(&log))
    }

    /// Removes everything and checks that nothing is left.
    pub async fn finish(self) {
        let shims: Vec<u32> =
            self.runtime().sandboxes().await.unwrap().iter().filter_map(|s| s.pid).collect();
        self.runtime().remove_all().await.unwrap();
        assert!(self.runtime().sandboxes().await.unwrap().is_empty());
        assert!(self.runtime().containers().await.unwrap().is_empty());
        let data = self.directory.canonicalize().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(data.to_str().unwrap()), "a mount is left");
        let cgroups = runtime::cgroup::Cgroups::detect().unwrap();
        for directory in ["data/sandboxes", "data/containers", "data/tmp"] {
            let left: Vec<_> = std::fs::read_dir(data.join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{left:?} is left");
        }
        assert_eq!(cgroups.processes(&self.cgroup).unwrap(), Vec::<i32>::new());
        cgroups.remove(&self.cgroup).unwrap();
        for pid in shims {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
                let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(rustix::event::poll(&mut poll, Some(&limit)).unwrap(), 1, "a shim is left");
            }
        }
    }
}

/// After a failed test: whatever it left is killed and taken away, so that it cannot disturb others.
impl Drop for Bench {
    fn drop(&mut self) {
        let Ok(data) = self.directory.canonicalize() else { return };
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        for entry in processes.flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&line).contains(data.to_str().unwrap_or("?"));
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
                .and_then(rustix::process::Pid::from_raw);
            if let (true, Some(pid)) = (ours, pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = runtime::cgroup::Cgroups::detect().and_then(|cgroups| cgroups.remove(&self.cgroup));
        for sandbox in std::fs::read_dir(data.join("data/sandboxes")).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(sandbox.path().join("shm"), rustix::mount::UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(data);
    }
}

/// The probe with these words.
pub fn spec(words: &[&str]) -> ContainerSpec {
    ContainerSpec {
        image: IMAGE.to_owned(),
        args: words.iter().map(|word| (*word).to_owned()).collect(),
        ..ContainerSpec::default()
    }
}

/// A bind mount.
pub fn bind(source: &Path, destination: &str, read_only: bool) -> Mount {
    Mount {
        source: MountSource::Path(source.to_path_buf()),
        subpath: None,
        destination: destination.into(),
        read_only,
        recursive_read_only: false,
        propagation: Propagation::Private,
    }
}

/// A log without its stamps and tags.
pub fn plain(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let rest = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    text.lines().map(rest).collect::<Vec<_>>().join("\n")
}
