//! Who is measured: a Clipper, or upstream's components, each in a network namespace of its own.

use super::scripts;
use crate::cluster::{Cluster, Part};
use crate::kit::{call, kit, output, program, shared};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where both serve their API.
pub(super) const SERVER: &str = "https://172.31.0.1:6443";
/// How long a start may take.
const READY_SECONDS_MAX: u32 = 60;
/// How long the peer's script may take until its namespace is there.
const NAMESPACE_WAIT: Duration = Duration::from_millis(2);
/// What pods run in these measurements. It is nobody's overhead.
const POD_COMMAND: &str = "sleep";

/// Seconds from the start.
pub(super) struct Start {
    pub api: f64,
    pub node: f64,
}

/// One system under measurement. Dropped, it leaves nothing behind.
pub(super) enum Subject {
    Clipper(Cluster),
    Peer(String),
}

// The probe is another process: the wall clock is what both know.
#[allow(clippy::disallowed_methods)]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn probe(mut command: Command) -> Result<Child> {
    command.arg(scripts().join("ready.py")).arg(format!("{SERVER}/readyz"));
    command.arg(READY_SECONDS_MAX.to_string()).stdout(Stdio::piped());
    command.spawn().context("cannot start python3")
}

fn probed(child: Child) -> Result<f64> {
    let text = String::from_utf8(child.wait_with_output()?.stdout)?;
    text.trim().parse().with_context(|| format!("the API server was not ready in {READY_SECONDS_MAX} s"))
}

impl Subject {
    /// Starts a Clipper on an empty data directory.
    ///
    /// # Errors
    /// It is not ready in time.
    pub(super) fn clipper(name: &str, binary: &Path, part: Part) -> Result<(Self, Start)> {
        let mut cluster = Cluster::prepare(name, binary, part)?;
        let probe = probe(cluster.enter(Path::new("python3")))?;
        let began = now();
        cluster.up()?;
        let node = now() - began;
        let api = probed(probe)? - began;
        Ok((Self::Clipper(cluster), Start { api, node }))
    }

    /// Starts upstream; without a node where only its control plane is asked for.
    ///
    /// # Errors
    /// It is not ready in time.
    pub(super) fn peer(name: &str, part: Part) -> Result<(Self, Start)> {
        let mut up = Command::new(shared().join("conformance/peer"));
        up.args(["up", name]).env("KIT", kit());
        if part == Part::Server {
            up.arg("--no-node");
        }
        let own = Self::Peer(name.to_owned());
        let mut up = up.spawn().context("cannot start the peer")?;
        let namespace = Path::new("/run/netns").join(name);
        while !namespace.exists() && up.try_wait()?.is_none() {
            std::thread::sleep(NAMESPACE_WAIT);
        }
        let probe = probe(own.enter(Path::new("python3")))?;
        anyhow::ensure!(up.wait()?.success(), "the peer did not start");
        let node = now();
        // Certificates are made before; its first program is the store.
        let first = std::fs::metadata(own.peer_dir().join("etcd.pid"))?.modified()?;
        let began = first.duration_since(UNIX_EPOCH)?.as_secs_f64();
        Ok((own, Start { api: probed(probe)? - began, node: node - began }))
    }

    fn peer_dir(&self) -> PathBuf {
        let Self::Peer(name) = self else { return PathBuf::new() };
        kit().join("peer").join(name)
    }

    /// A command where the cluster's addresses are reachable.
    pub(super) fn enter(&self, program: &Path) -> Command {
        match self {
            Self::Clipper(cluster) => cluster.enter(program),
            Self::Peer(name) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{name}")).arg(program);
                command
            }
        }
    }

    /// Of an administrator.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Clipper(cluster) => cluster.kubeconfig(),
            Self::Peer(_) => self.peer_dir().join("pki/admin.conf"),
        }
    }

    /// Runs kubectl and returns what it prints.
    pub(super) fn kubectl(&self, words: &[&str], input: &str) -> Result<String> {
        let mut command = self.enter(&program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(words);
        output(command, input)
    }

    /// Imports an image tarball.
    pub(super) fn import(&self, tarball: &Path) -> Result<()> {
        match self {
            Self::Clipper(cluster) => cluster.import(&[tarball.to_owned()]),
            Self::Peer(name) => {
                let mut command = Command::new(shared().join("conformance/peer"));
                command.args(["import", name]).arg(tarball).env("KIT", kit());
                call(command)
            }
        }
    }

    /// The system's processes: all that it started but what pods themselves run.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let (mut roots, marks) = match self {
            Self::Clipper(cluster) => {
                (vec![cluster.pid()?], vec![format!("{}/", cluster.data_dir().display())])
            }
            Self::Peer(_) => {
                let dir = self.peer_dir();
                let pids = std::fs::read_dir(&dir)?.filter_map(|entry| Some(entry.ok()?.path()));
                let pids = pids.filter(|path| path.extension().is_some_and(|end| end == "pid"));
                let pids = pids.filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
                (pids.collect(), vec![format!("{}/", dir.display())])
            }
        };
        let all = processes();
        // Shims outlive who started them: they are known by the directory in their arguments.
        let is_shim = |process: &&Process| {
            process.arguments.contains("shim") && marks.iter().any(|mark| process.arguments.contains(mark))
        };
        roots.extend(all.iter().filter(is_shim).map(|process| process.pid));
        let mut own: Vec<u32> = Vec::new();
        while let Some(pid) = roots.pop() {
            if !own.contains(&pid) {
                own.push(pid);
                roots.extend(all.iter().filter(|process| process.parent == pid).map(|process| process.pid));
            }
        }
        own.retain(|pid| all.iter().any(|process| process.pid == *pid && process.name != POD_COMMAND));
        own.sort_unstable();
        Ok(own)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Self::Peer(name) = self {
            let mut down = Command::new(shared().join("conformance/peer"));
            down.args(["down", name]).env("KIT", kit());
            if let Err(error) = call(down) {
                eprintln!("{error:#}");
            }
        }
    }
}

struct Process {
    pid: u32,
    parent: u32,
    name: String,
    arguments: String,
}

/// Every process that can be read.
fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (head, rest) = stat.rsplit_once(") ")?;
    Some(Process {
        pid,
        parent: rest.split(' ').nth(1)?.parse().ok()?,
        name: head.split_once(" (")?.1.to_owned(),
        arguments: String::from_utf8_lossy(&arguments).replace('\0', " "),
    })
}
