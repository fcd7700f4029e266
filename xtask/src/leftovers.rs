//! Whether `clipper down` left anything on the machine: process, mount, interface, route, rule, table or control group.

use crate::cluster::Cluster;
use crate::kit::output;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Hierarchies lie this deep at most below it: version 1 has one folder for each controller.
const CGROUP_DEPTH_MAX: usize = 2;

/// What a network namespace has: each line says one thing.
#[derive(Debug, PartialEq, Eq)]
pub struct Network(BTreeSet<String>);

impl Network {
    /// Of a cluster's namespace.
    ///
    /// # Errors
    /// `ip` or `nft` cannot be run.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let asked: [(&str, &[&str]); 5] = [
            ("ip", &["-o", "-br", "link"]),
            ("ip", &["-4", "route", "show", "table", "all"]),
            ("ip", &["-4", "rule"]),
            ("ip", &["-4", "-o", "-br", "address"]),
            ("nft", &["list", "tables"]),
        ];
        let mut lines = BTreeSet::new();
        for (program, words) in asked {
            let mut command = cluster.enter(Path::new(program));
            command.args(words);
            lines.extend(output(command, "")?.lines().map(|line| format!("{program}: {}", line.trim())));
        }
        Ok(Self(lines))
    }
}

/// What a running cluster has, by which its leftovers are known.
pub struct Traces {
    data_dir: String,
    /// Names of the control groups that its processes are in.
    cgroups: BTreeSet<String>,
}

impl Traces {
    /// Of a cluster that runs and has pods.
    ///
    /// # Errors
    /// Its processes are in no control group of its own: nothing could be checked.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        let data_dir = cluster.data_dir().display().to_string();
        let mut own = Self { data_dir, cgroups: BTreeSet::new() };
        let all = processes();
        let (mut known, mut others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|process| own.is_of(process));
        // What runs in containers says nothing of the directory: it descends from what does.
        while let Some(process) = known.pop() {
            let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            let parts = groups.lines().flat_map(|line| line.split(['/', ':']));
            own.cgroups.extend(parts.filter(|part| part.starts_with("clipper-")).map(str::to_owned));
            let children = others.extract_if(.., |other| parent(other).as_deref() == process.file_name());
            known.extend(children);
        }
        if own.cgroups.is_empty() {
            bail!("no process of {} is in a control group of its own", own.data_dir);
        }
        Ok(own)
    }

    fn is_of(&self, process: &Path) -> bool {
        let says = |name: &str| {
            let text = std::fs::read(process.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&text).replace('\0', " ")
        };
        let groups = says("cgroup");
        says("cmdline").contains(&format!("{}/", self.data_dir))
            || groups.lines().flat_map(|line| line.split('/')).any(|part| self.cgroups.contains(part))
    }

    /// What is still there.
    ///
    /// # Errors
    /// Something of the system cannot be read.
    pub fn left(&self, cluster: &Cluster, before: &Network) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for process in processes().iter().filter(|process| self.is_of(process)) {
            let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
            left.push(format!("process {} ({})", process.display(), name.trim()));
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mounts = mounts.lines().filter(|line| line.contains(&self.data_dir));
        left.extend(mounts.map(|line| format!("mount {line}")));
        left.extend(self.cgroups_left(Path::new(CGROUPS), CGROUP_DEPTH_MAX));
        let after = Network::of(cluster)?;
        left.extend(after.0.difference(&before.0).cloned());
        left.extend(before.0.difference(&after.0).map(|line| format!("gone: {line}")));
        Ok(left)
    }

    fn cgroups_left(&self, folder: &Path, depth: usize) -> Vec<String> {
        let mut left = Vec::new();
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if self.cgroups.contains(&*name) {
                left.push(format!("control group {}", path.display()));
            } else if depth > 1 && path.is_dir() {
                left.extend(self.cgroups_left(&path, depth - 1));
            }
        }
        left
    }
}

/// The number of a process's parent.
fn parent(process: &Path) -> Option<OsString> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').nth(1)?.into())
}

/// Every process, as its folder in /proc.
fn processes() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_process = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.map(|entry| entry.path()).filter(is_process).collect()
}

/// Installs the program that lists tables of rules.
///
/// # Errors
/// It cannot be installed.
pub fn ensure() -> Result<()> {
    if Command::new("nft").arg("--version").output().is_err() {
        crate::kit::call(Command::new("apt-get").args(["install", "-y", "-qq", "nftables"]))?;
    }
    Ok(())
}
