//! One hierarchy per controller, and possibly v2 beside them with the rest.

use super::{DeviceRule, keyed, number, v2, write};
use crate::error::{Error, Result};
use crate::spec::Limits;
use crate::status::Stats;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy {
    pub(super) at: PathBuf,
    /// Controllers, or `name=systemd`.
    pub(super) names: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Hierarchies {
    pub(super) all: Vec<Hierarchy>,
    pub(super) unified: Option<v2::Unified>,
}

/// At and above this a limit means none: what the kernel shows for "no limit", rounded to pages.
const NO_LIMIT_BYTES: u64 = 1 << 62;

impl Hierarchies {
    /// Where a controller is mounted.
    pub(super) fn of(&self, controller: &str) -> Option<&Path> {
        self.all.iter().find(|h| h.names.iter().any(|n| n == controller)).map(|h| h.at.as_path())
    }

    fn group(&self, controller: &str, path: &Path) -> Option<PathBuf> {
        self.of(controller).map(|at| at.join(path))
    }

    pub(super) fn create(&self, path: &Path) -> Result<()> {
        for hierarchy in &self.all {
            let group = hierarchy.at.join(path);
            std::fs::create_dir_all(&group).map_err(Error::io("making the control group", &group))?;
            if hierarchy.names.iter().any(|name| name == "cpuset") {
                inherit_cpuset(&hierarchy.at, path)?;
            }
        }
        self.unified.as_ref().map_or(Ok(()), |unified| unified.create(path))
    }

    pub(super) fn apply(&self, path: &Path, limits: &Limits) -> Result<()> {
        if let Some(cpu) = self.group("cpu", path) {
            if let Some(shares) = limits.cpu_shares {
                write(&cpu, "cpu.shares", shares)?;
            }
            apply_quota(&cpu, limits)?;
        }
        if let Some(memory) = self.group("memory", path) {
            apply_memory(&memory, limits)?;
        }
        if let Some(cpuset) = self.group("cpuset", path) {
            for (file, value) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)]
            {
                if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                    write(&cpuset, file, value)?;
                }
            }
        }
        if let (Some(pids), Some(count)) = (self.group("pids", path), limits.pids) {
            write(&pids, "pids.max", if count < 0 { "max".to_owned() } else { count.to_string() })?;
        }
        match self.group("hugetlb", path) {
            Some(hugetlb) => {
                for (size, bytes) in &limits.hugepages {
                    write(&hugetlb, &format!("hugetlb.{size}.limit_in_bytes"), bytes)?;
                }
                Ok(())
            }
            None => self.unified.as_ref().map_or(Ok(()), |unified| unified.apply_hugepages(path, limits)),
        }
    }

    pub(super) fn allow_devices(&self, path: &Path, rules: &[DeviceRule]) -> Result<()> {
        let Some(devices) = self.group("devices", path) else {
            return self.unified.as_ref().map_or(Ok(()), |unified| unified.allow_devices(path, rules));
        };
        write(&devices, "devices.deny", "a")?;
        let text = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        for rule in rules {
            let line = format!("{} {}:{} {}", rule.kind, text(rule.major), text(rule.minor), rule.access);
            write(&devices, "devices.allow", line)?;
        }
        Ok(())
    }

    pub(super) fn stats(&self, path: &Path) -> Result<Stats> {
        let memory = self
            .group("memory", path)
            .ok_or_else(|| Error::Unsupported { feature: "memory accounting".into() })?;
        let usage = number(&memory, "memory.usage_in_bytes");
        let usage = usage.ok_or_else(|| Error::Io {
            operation: "reading the control group",
            path: memory.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let of = keyed(&memory, "memory.stat");
        let value = |key: &str| of.get(key).copied().unwrap_or(0);
        Ok(Stats {
            at: crate::clock::now(),
            cpu_ns: self
                .group("cpuacct", path)
                .and_then(|group| number(&group, "cpuacct.usage"))
                .unwrap_or(0),
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(value("total_inactive_file")),
            memory_rss_bytes: value("total_rss"),
            memory_limit_bytes: number(&memory, "memory.limit_in_bytes")
                .filter(|limit| *limit < NO_LIMIT_BYTES),
            swap_bytes: value("total_swap"),
            page_faults: value("total_pgfault"),
            major_page_faults: value("total_pgmajfault"),
            pids: self.group("pids", path).and_then(|group| number(&group, "pids.current")).unwrap_or(0),
            pressure: Default::default(),
        })
    }

    /// Directory names and mount options, as a container should see them.
    pub(super) fn mounts(&self) -> Vec<(String, Vec<String>)> {
        let all = self.all.iter();
        all.map(|hierarchy| {
            let named = hierarchy.names.iter().any(|name| name.starts_with("name="));
            let mut options = hierarchy.names.clone();
            if named && options.len() == 1 {
                options.insert(0, "none".to_owned());
            }
            let directory =
                hierarchy.at.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (directory, options)
        })
        .collect()
    }
}

/// A new cpuset is empty, and takes no process until it has processors and memory nodes: those of its parent.
fn inherit_cpuset(at: &Path, path: &Path) -> Result<()> {
    let mut parent = at.to_path_buf();
    for component in path.components() {
        let group = parent.join(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = std::fs::read_to_string(group.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let inherited = std::fs::read_to_string(parent.join(file))
                    .map_err(Error::io("reading", parent.join(file)))?;
                write(&group, file, inherited.trim())?;
            }
        }
        parent = group;
    }
    Ok(())
}

/// Period and quota: which comes first depends on what is there, and the kernel refuses what is out of order.
fn apply_quota(cpu: &Path, limits: &Limits) -> Result<()> {
    let period =
        |limits: &Limits| limits.cpu_period_us.map_or(Ok(()), |us| write(cpu, "cpu.cfs_period_us", us));
    let quota =
        |limits: &Limits| limits.cpu_quota_us.map_or(Ok(()), |us| write(cpu, "cpu.cfs_quota_us", us.max(-1)));
    match period(limits) {
        Ok(()) => quota(limits),
        Err(_) => quota(limits).and_then(|()| period(limits)),
    }
}

/// Memory, and memory with swap, which is never less: so again the order depends on what is there.
fn apply_memory(memory: &Path, limits: &Limits) -> Result<()> {
    let swap = limits.memory_swap_bytes.filter(|_| memory.join("memory.memsw.limit_in_bytes").exists());
    let set_memory =
        || limits.memory_bytes.map_or(Ok(()), |bytes| write(memory, "memory.limit_in_bytes", bytes.max(-1)));
    let set_swap =
        || swap.map_or(Ok(()), |bytes| write(memory, "memory.memsw.limit_in_bytes", bytes.max(-1)));
    match set_memory() {
        Ok(()) => set_swap(),
        Err(_) if swap.is_some() => set_swap().and_then(|()| set_memory()),
        Err(error) => Err(error),
    }
}
