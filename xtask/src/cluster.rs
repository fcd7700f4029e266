//! A clipper under test, in a network namespace of its own.

use crate::kit::{call, program, root, target};
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
    etcd: Option<Child>,
    part: Part,
}

/// What of clipper is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A whole node.
    Up,
    /// A whole node with the sample application.
    Demo,
    /// A whole node but for scheduler and controllers.
    NodeWithoutLoops,
    /// The control plane alone.
    Server,
    /// The control plane alone, with its objects in etcd.
    ServerOnEtcd,
}

impl Cluster {
    /// Makes the namespace and starts the node.
    ///
    /// # Errors
    /// The namespace cannot be made, or the node is not ready in time.
    pub fn start(name: &str, binary: &Path, part: Part) -> Result<Self> {
        let mut cluster = Self::prepare(name, binary, part)?;
        cluster.up()?;
        Ok(cluster)
    }

    /// Makes the namespace; [`Cluster::up`] starts the node.
    ///
    /// # Errors
    /// The namespace cannot be made.
    pub fn prepare(name: &str, binary: &Path, part: Part) -> Result<Self> {
        let data_dir = std::env::temp_dir().join(format!("clipper-{name}"));
        let (name, binary) = (name.to_owned(), binary.to_owned());
        let mut cluster = Self { name, data_dir, binary, process: None, etcd: None, part };
        cluster.namespace()?;
        if part == Part::ServerOnEtcd {
            cluster.etcd()?;
        }
        Ok(cluster)
    }

    /// Where its data is.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A command of the binary, about this cluster.
    pub fn clipper(&self, words: &[String]) -> Command {
        let mut command = self.enter(&self.binary);
        command.args(words).arg("--data-dir").arg(&self.data_dir);
        command
    }

    /// The process of the node.
    ///
    /// # Errors
    /// It is not running.
    pub fn pid(&self) -> Result<u32> {
        self.process.as_ref().map(Child::id).context("the node is not running")
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

    /// Starts etcd inside the namespace. Whoever needs it waits for it.
    fn etcd(&mut self) -> Result<()> {
        let command = self
            .enter(&program("etcd"))
            .arg("--data-dir")
            .arg(self.etcd_dir())
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .spawn();
        self.etcd = Some(command.context("cannot start etcd")?);
        Ok(())
    }

    fn etcd_dir(&self) -> PathBuf {
        std::env::temp_dir().join(format!("clipper-{}-etcd", self.name))
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
        let words: &[&str] = match self.part {
            Part::Up => &["up"],
            Part::Demo => &["up", "--demo"],
            Part::NodeWithoutLoops => &["up", "--without", "scheduler,controllers"],
            Part::Server => &["server"],
            Part::ServerOnEtcd => &["server", "--store", "etcd", "--etcd-endpoints", "http://127.0.0.1:2379"],
        };
        let mut child = self
            .enter(&self.binary)
            .args(words)
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

    /// Kills the process, as a crash would. What it made stays.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("the node is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it and removes all that it made but its data.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn down(&mut self) -> Result<()> {
        let mut command = self.enter(&self.binary);
        command.args(["down", "--data-dir"]).arg(&self.data_dir);
        call(command)?;
        if let Some(mut child) = self.process.take() {
            child.wait()?;
        }
        Ok(())
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
        for mut child in [self.process.take(), self.etcd.take()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if self.part == Part::ServerOnEtcd {
            let _ = std::fs::remove_dir_all(self.etcd_dir());
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
    Ok(target().join("release/clipper"))
}
