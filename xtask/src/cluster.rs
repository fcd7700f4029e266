//! A clipper under test, in a network namespace of its own.

use crate::kit::{call, root};
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How long a node may take from its start to its ready line.
const READY_SECONDS_MAX: u64 = 60;

/// A clipper in a network namespace that has no way out. Dropped, it leaves nothing behind.
pub struct Cluster {
    name: String,
    data_dir: PathBuf,
    binary: PathBuf,
    process: Option<Child>,
    part: Part,
}

/// What of clipper is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole node.
    Up,
    /// The control plane alone.
    Server,
}

impl Cluster {
    /// Makes the namespace and starts the node.
    ///
    /// # Errors
    /// The namespace cannot be made, or the node is not ready in time.
    pub fn start(name: &str, binary: &Path, part: Part) -> Result<Self> {
        let data_dir = std::env::temp_dir().join(format!("clipper-{name}"));
        let mut cluster =
            Self { name: name.to_owned(), data_dir, binary: binary.to_owned(), process: None, part };
        cluster.namespace()?;
        cluster.up()?;
        Ok(cluster)
    }

    fn namespace(&self) -> Result<()> {
        let name = self.name.as_str();
        let ip = |words: &[&str]| {
            let mut command = Command::new("ip");
            command.args(words);
            call(command)
        };
        ip(&["netns", "add", name])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "add", "br-host", "type", "bridge"])?;
        ip(&["-n", name, "addr", "add", "172.31.0.1/24", "dev", "br-host"])?;
        ip(&["-n", name, "link", "add", "stub0", "type", "veth", "peer", "name", "stub1"])?;
        ip(&["-n", name, "link", "set", "stub1", "master", "br-host"])?;
        for link in ["br-host", "stub0", "stub1"] {
            ip(&["-n", name, "link", "set", link, "up"])?;
        }
        Ok(())
    }

    /// A command inside the namespace. (`ip netns exec` would hide the cgroup mounts.)
    pub fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// Starts (again) the node and waits for its ready line.
    ///
    /// # Errors
    /// It ended, or was not ready in time.
    pub fn up(&mut self) -> Result<()> {
        let mut child = self
            .enter(&self.binary)
            .arg(match self.part {
                Part::Up => "up",
                Part::Server => "server",
            })
            .args(["--node-ip", "172.31.0.1", "--node-name", "node1", "--data-dir"])
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("the node has no output")?;
        let (tell, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                println!("clipper: {line}");
                if line.contains("ready") && line.contains("kubeconfig") {
                    let _ = tell.send(());
                }
            }
        });
        self.process = Some(child);
        ready
            .recv_timeout(std::time::Duration::from_secs(READY_SECONDS_MAX))
            .map_err(|_| anyhow::anyhow!("the node was not ready in {READY_SECONDS_MAX} s"))
    }

    /// Where the administrator's kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    /// Imports image tarballs.
    ///
    /// # Errors
    /// One of them is refused.
    pub fn import(&self, tarballs: &[PathBuf]) -> Result<()> {
        let mut command = self.enter(&self.binary);
        command.args(["image", "import", "--data-dir"]).arg(&self.data_dir).args(tarballs);
        call(command)
    }

    /// Leaves it running.
    pub fn keep(mut self) {
        println!(
            "left running: nsenter --net=/run/netns/{} kubectl --kubeconfig={}",
            self.name,
            self.kubeconfig().display()
        );
        self.process = None;
        self.name.clear();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let down =
            self.enter(&self.binary).args(["down", "--purge", "--data-dir"]).arg(&self.data_dir).status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("clipper down failed for {}", self.data_dir.display());
        }
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Builds clipper as it is shipped and says where the binary is.
///
/// # Errors
/// It does not build.
pub fn build() -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--package", "clipper"]).current_dir(root());
    call(command)?;
    Ok(root().join("target/release/clipper"))
}
