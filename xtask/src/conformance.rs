//! `cargo xtask conformance`: the official suite against a cluster that lives in a network namespace of its own.

use crate::kit::{call, kit, root, shared};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How long a node may take from its start to its ready line.
const READY_SECONDS_MAX: u64 = 60;

/// What to run.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Lists of the kit by name (`sig-node`), or files; `ratchet` is conformance/green.txt.
    #[arg(default_values_t = vec!["ratchet".to_owned()])]
    lists: Vec<String>,
    /// Only names that match.
    #[arg(long)]
    only: Option<String>,
    /// Tests at once.
    #[arg(long, default_value_t = 4)]
    procs: u32,
    /// Leave the cluster running afterwards and print how to reach it.
    #[arg(long)]
    keep: bool,
    /// Where the results go.
    #[arg(long, default_value = "conformance-out")]
    out: PathBuf,
}

impl Options {
    /// What CI runs: every name of the ratchet must pass.
    pub fn ratchet() -> Self {
        Self { lists: vec!["ratchet".into()], procs: 4, out: "conformance-out".into(), ..Self::default() }
    }
}

/// A clipper in a network namespace that has no way out. Dropped, it leaves nothing behind.
pub struct Cluster {
    name: String,
    data_dir: PathBuf,
    binary: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    /// Makes the namespace and starts the node.
    ///
    /// # Errors
    /// The namespace cannot be made, or the node is not ready in time.
    pub fn start(name: &str, binary: &Path) -> Result<Self> {
        let data_dir = std::env::temp_dir().join(format!("clipper-{name}"));
        let mut cluster = Self { name: name.to_owned(), data_dir, binary: binary.to_owned(), process: None };
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
            .args(["up", "--node-ip", "172.31.0.1", "--node-name", "node1", "--data-dir"])
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

/// Runs the lists and prints what passed.
///
/// # Errors
/// A name of the ratchet failed, or the suite could not run.
pub fn run(options: &Options) -> Result<()> {
    crate::kit::ensure()?;
    let mut names = BTreeSet::new();
    for list in &options.lists {
        let path = match list.as_str() {
            "ratchet" => root().join("conformance/green.txt"),
            name if name.ends_with(".txt") => PathBuf::from(name),
            name => shared().join(format!("conformance/lists/{name}.txt")),
        };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        names.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if names.is_empty() {
        bail!("no test names: the lists are empty");
    }
    fs::create_dir_all(&options.out)?;
    let list = options.out.join("names.txt");
    fs::write(&list, names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    let binary = build()?;
    let cluster = Cluster::start(&format!("conf{}", std::process::id()), &binary)?;
    let mut tarballs: Vec<_> =
        fs::read_dir(kit().join("images"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tarballs.sort();
    cluster.import(&tarballs)?;
    let mut command = cluster.enter(&shared().join("conformance/run"));
    command
        .arg(cluster.kubeconfig())
        .arg(&list)
        .args(["--procs", &options.procs.to_string(), "--out"])
        .arg(&options.out)
        .env("KIT", kit());
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    let passed = call(command);
    if options.keep {
        cluster.keep();
    }
    passed
}
