//! The unified hierarchy.

use super::{DeviceRule, bpf, keyed, number, write};
use crate::error::{Error, Result};
use crate::spec::Limits;
use crate::status::Stats;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where it is mounted.
#[derive(Clone, Debug)]
pub(super) struct Unified {
    pub(super) at: PathBuf,
}

/// The period that `cpu.max` has unless told otherwise.
const CPU_PERIOD_US: u64 = 100_000;

impl Unified {
    pub(super) fn create(&self, path: &Path) -> Result<()> {
        let mut parent = self.at.clone();
        for component in path.components() {
            self.enable_controllers(&parent)?;
            parent.push(component);
            match std::fs::create_dir(&parent) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("making the control group", &parent)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives a group's children all controllers that it has itself.
    fn enable_controllers(&self, group: &Path) -> Result<()> {
        let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
        let (available, enabled) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
        let missing: Vec<String> = available
            .split_whitespace()
            .filter(|controller| !enabled.split_whitespace().any(|e| e == *controller))
            .map(|controller| format!("+{controller}"))
            .collect();
        if missing.is_empty() || write(group, "cgroup.subtree_control", missing.join(" ")).is_ok() {
            return Ok(());
        }
        // One that cannot be had (a process in between, a controller of real-time groups) must not cost the others.
        missing.iter().for_each(|controller| drop(write(group, "cgroup.subtree_control", controller)));
        Ok(())
    }

    pub(super) fn apply(&self, path: &Path, limits: &Limits) -> Result<()> {
        let group = self.at.join(path);
        for (file, value) in
            files(limits, &std::fs::read_to_string(group.join("cpu.max")).unwrap_or_default())
        {
            // Swap accounting can be compiled out or switched off; without it there is no swap to bound.
            if file == "memory.swap.max" && !group.join(file).exists() {
                continue;
            }
            write(&group, file, value)?;
        }
        self.apply_hugepages(path, limits)
    }

    pub(super) fn apply_hugepages(&self, path: &Path, limits: &Limits) -> Result<()> {
        let group = self.at.join(path);
        for (size, bytes) in &limits.hugepages {
            let file = format!("hugetlb.{size}.max");
            // Zero bytes of a page size that the machine does not have is what it has.
            if *bytes > 0 || group.join(&file).exists() {
                write(&group, &file, bytes)?;
            }
        }
        Ok(())
    }

    pub(super) fn allow_devices(&self, path: &Path, rules: &[DeviceRule]) -> Result<()> {
        let group = self.at.join(path);
        bpf::attach_device_filter(&group, rules).map_err(Error::io("attaching a device filter to", &group))
    }

    pub(super) fn stats(&self, path: &Path) -> Result<Stats> {
        let group = self.at.join(path);
        let usage = number(&group, "memory.current").ok_or_else(|| Error::Io {
            operation: "reading the control group",
            path: group.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        let of = keyed(&group, "memory.stat");
        let value = |key: &str| of.get(key).copied().unwrap_or(0);
        Ok(Stats {
            at: crate::clock::now(),
            cpu_ns: keyed(&group, "cpu.stat").get("usage_usec").copied().unwrap_or(0) * 1000,
            memory_usage_bytes: usage,
            memory_working_set_bytes: usage.saturating_sub(value("inactive_file")),
            memory_rss_bytes: value("anon"),
            memory_limit_bytes: number(&group, "memory.max"),
            swap_bytes: number(&group, "memory.swap.current").unwrap_or(0),
            page_faults: value("pgfault"),
            major_page_faults: value("pgmajfault"),
            pids: number(&group, "pids.current").unwrap_or(0),
            pressure: pressure(&group),
        })
    }
}

fn pressure(group: &Path) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for resource in ["cpu", "memory", "io"] {
        let text = std::fs::read_to_string(group.join(format!("{resource}.pressure"))).unwrap_or_default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ').unwrap_or_default();
            let total = rest
                .split(' ')
                .find_map(|field| field.strip_prefix("total="))
                .and_then(|total| total.parse().ok());
            if let Some(total) = total {
                all.insert(format!("{resource} {kind}"), total);
            }
        }
    }
    all
}

/// What to write for `limits`, where `cpu.max` reads `cpu_max` now.
fn files(limits: &Limits, cpu_max: &str) -> Vec<(&'static str, String)> {
    let mut files = Vec::new();
    let bound = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    if let Some(shares) = limits.cpu_shares {
        files.push(("cpu.weight", weight(shares).to_string()));
    }
    if limits.cpu_quota_us.is_some() || limits.cpu_period_us.is_some() {
        let mut now = cpu_max.split_whitespace();
        let quota_now = now.next().unwrap_or("max").to_owned();
        let period_now = now.next().and_then(|period| period.parse().ok()).unwrap_or(CPU_PERIOD_US);
        let quota = limits
            .cpu_quota_us
            .map_or(quota_now, |us| if us <= 0 { "max".to_owned() } else { us.to_string() });
        files.push(("cpu.max", format!("{quota} {}", limits.cpu_period_us.unwrap_or(period_now))));
    }
    if let Some(bytes) = limits.memory_bytes {
        files.push(("memory.max", bound(bytes)));
    }
    if let Some(both) = limits.memory_swap_bytes {
        let swap = match limits.memory_bytes {
            Some(memory) if both >= 0 && memory >= 0 => (both - memory).max(0),
            _ => both,
        };
        files.push(("memory.swap.max", bound(swap)));
    }
    let exact = [("memory.min", limits.memory_min_bytes), ("memory.high", limits.memory_high_bytes)];
    files.extend(exact.into_iter().filter_map(|(file, bytes)| Some((file, bytes?.to_string()))));
    if let Some(group) = limits.oom_kill_group {
        files.push(("memory.oom.group", u8::from(group).to_string()));
    }
    if let Some(pids) = limits.pids {
        files.push(("pids.max", bound(pids)));
    }
    for (file, list) in [("cpuset.cpus", &limits.cpuset_cpus), ("cpuset.mems", &limits.cpuset_mems)] {
        if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
            files.push((file, list.clone()));
        }
    }
    files
}

/// v1 shares (2 to 262144) as a v2 weight (1 to 10000): a curve through both ends and both defaults (1024 is 100).
/// Upstream: opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        fn check(shares: u64, expect: u64) {
            assert_eq!(weight(shares), expect, "{shares}");
        }
        check(0, 1);
        check(2, 1);
        check(1024, 100);
        check(262_144, 10_000);
        check(102, 17);
    }

    #[test]
    fn limits_become_files() {
        fn check(limits: Limits, cpu_max: &str, expect: &[(&str, &str)]) {
            let files = files(&limits, cpu_max);
            let files: Vec<(&str, &str)> =
                files.iter().map(|(file, value)| (*file, value.as_str())).collect();
            assert_eq!(files, expect);
        }
        check(Limits::default(), "max 100000", &[]);
        let quota = Limits { cpu_quota_us: Some(50_000), ..Limits::default() };
        check(quota, "max 100000", &[("cpu.max", "50000 100000")]);
        let none = Limits { cpu_quota_us: Some(-1), cpu_period_us: Some(20_000), ..Limits::default() };
        check(none, "5 100000", &[("cpu.max", "max 20000")]);
        let memory = Limits { memory_bytes: Some(100), memory_swap_bytes: Some(100), ..Limits::default() };
        check(memory, "", &[("memory.max", "100"), ("memory.swap.max", "0")]);
        let free = Limits { memory_bytes: Some(-1), pids: Some(-1), ..Limits::default() };
        check(free, "", &[("memory.max", "max"), ("pids.max", "max")]);
    }
}
