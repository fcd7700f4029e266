//! What pods and the node use: `/stats/summary` and the metrics that others scrape. Upstream: `kubelet` `stats/v1alpha1`,
//! `pkg/kubelet/metrics/collectors/resource_metrics.go`.

use crate::context::{NodeContext, PodView};
use crate::node_object::{self, Disk};
use crate::observed::{ContainerSeen, State};
use crate::pods::Pods;
use api::Timestamp;
use parking_lot::Mutex;
use runtime::Stats;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

/// Rates are counted over at least this long; sooner the last one is told again.
const RATE_OVER_NS_MIN: i128 = 1_000_000_000;

/// The last measure of each thing, for rates.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, Sample>>);

#[derive(Clone, Copy)]
struct Sample {
    at: Timestamp,
    cpu_ns: u64,
    rate: Option<u64>,
}

impl Rates {
    /// Processor use in nanocores since the measure before.
    fn rate(&self, id: &str, at: Timestamp, cpu_ns: u64) -> Option<u64> {
        let mut samples = self.0.lock();
        let Some(last) = samples.get(id).copied() else {
            samples.insert(id.to_owned(), Sample { at, cpu_ns, rate: None });
            return None;
        };
        let elapsed = at.duration_since(last.at).as_nanos();
        if elapsed < RATE_OVER_NS_MIN {
            return last.rate;
        }
        let rate =
            u64::try_from(i128::from(cpu_ns.saturating_sub(last.cpu_ns)) * 1_000_000_000 / elapsed).ok();
        samples.insert(id.to_owned(), Sample { at, cpu_ns, rate });
        rate
    }

    fn keep(&self, ids: &[String]) {
        self.0.lock().retain(|id, _| ids.contains(id));
    }
}

/// What one pod uses: as a whole where that can be told, and each container that runs.
type PodUsage = (Arc<PodView>, Option<Stats>, Vec<(ContainerSeen, Stats)>);

/// What is used, measured once for one answer.
struct Measured {
    pods: Vec<PodUsage>,
}

/// Name, kind, help and value of a metric.
type Metric = (&'static str, &'static str, &'static str, fn(&Stats) -> String);

async fn measure(node: &NodeContext, pods: &Pods) -> Measured {
    let mut list = Vec::new();
    for view in pods.views() {
        let Some(sandbox) = view.observed.sandbox.as_ref().filter(|sandbox| sandbox.ready) else { continue };
        // What ends meanwhile uses nothing any more.
        let whole = node.runtime.sandbox_stats(&sandbox.id).await.ok();
        let mut containers = Vec::new();
        for seen in view.observed.running() {
            if let Ok(stats) = node.runtime.container_stats(&seen.id).await {
                containers.push((seen.clone(), stats));
            }
        }
        list.push((view, whole, containers));
    }
    list.sort_by(|a, b| (a.0.def.namespace(), a.0.def.name()).cmp(&(b.0.def.namespace(), b.0.def.name())));
    Measured { pods: list }
}

fn cpu(rates: &Rates, id: &str, stats: &Stats) -> Value {
    let rate = rates.rate(id, stats.at, stats.cpu_ns);
    json!({"time": stats.at.to_string(), "usageNanoCores": rate.unwrap_or(0), "usageCoreNanoSeconds": stats.cpu_ns})
}

fn memory(stats: &Stats) -> Value {
    let mut memory = json!({
        "time": stats.at.to_string(),
        "usageBytes": stats.memory_usage_bytes,
        "workingSetBytes": stats.memory_working_set_bytes,
        "rssBytes": stats.memory_rss_bytes,
        "pageFaults": stats.page_faults,
        "majorPageFaults": stats.major_page_faults,
    });
    if let Some(limit) = stats.memory_limit_bytes {
        memory["availableBytes"] = limit.saturating_sub(stats.memory_working_set_bytes).into();
    }
    memory
}

fn disk(at: &str, disk: &Disk, used: Option<(u64, u64)>) -> Value {
    let (bytes, inodes) = used.unwrap_or((
        disk.bytes.saturating_sub(disk.bytes_free),
        disk.inodes.saturating_sub(disk.inodes_free),
    ));
    json!({"time": at, "availableBytes": disk.bytes_free, "capacityBytes": disk.bytes, "usedBytes": bytes,
        "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": inodes})
}

/// `/stats/summary`.
pub(super) async fn summary(
    node: &NodeContext,
    pods: &Pods,
    rates: &Rates,
    only_cpu_and_memory: bool,
) -> Value {
    let measured = measure(node, pods).await;
    let now = node.clock.now();
    let at = now.to_string();
    let volumes = node_object::disk(&node.options.volume_directory).unwrap_or_default();
    let mut ids = vec!["node".to_owned()];
    let mut list = Vec::new();
    for (view, whole, containers) in &measured.pods {
        let mut shown = Vec::new();
        for (seen, stats) in containers {
            ids.push(seen.id.clone());
            let mut one = json!({
                "name": seen.name,
                "startTime": seen.started_at.unwrap_or(seen.created_at).to_string(),
                "cpu": cpu(rates, &seen.id, stats),
                "memory": memory(stats),
            });
            if !only_cpu_and_memory {
                if let Ok(used) = node.runtime.container_disk(&seen.id).await {
                    one["rootfs"] = disk(&at, &volumes, Some((used.bytes, used.inodes)));
                }
                let log = seen
                    .log_path
                    .as_ref()
                    .and_then(|path| std::fs::metadata(path).ok())
                    .map_or(0, |own| own.len());
                one["logs"] = disk(&at, &volumes, Some((log, 1)));
            }
            shown.push(one);
        }
        let def = &view.def;
        let started = view.status.start_time.as_ref().map_or(now, |time| time.0);
        let mut pod = json!({
            "podRef": {"name": def.name(), "namespace": def.namespace(), "uid": def.uid()},
            "startTime": started.to_string(),
            "containers": shown,
        });
        if let Some(stats) = whole {
            ids.push(def.uid().to_owned());
            pod["cpu"] = cpu(rates, def.uid(), stats);
            pod["memory"] = memory(stats);
            pod["process_stats"] = json!({"process_count": stats.pids});
        }
        list.push(pod);
    }
    let stats = node_stats(now);
    let mut own = json!({
        "nodeName": node.options.name,
        "startTime": boot_time().unwrap_or(now).to_string(),
        "cpu": cpu(rates, "node", &stats),
        "memory": memory(&stats),
    });
    if !only_cpu_and_memory {
        own["fs"] = disk(&at, &volumes, None);
        if let Ok(usage) = node.runtime.image_usage().await {
            let images = node_object::disk(&usage.path).unwrap_or_default();
            own["runtime"] = json!({"imageFs": disk(&at, &images, Some((usage.bytes, usage.inodes))), "containerFs": disk(&at, &images, None)});
        }
    }
    rates.keep(&ids);
    json!({"node": own, "pods": list})
}

/// What the whole machine uses.
fn node_stats(now: Timestamp) -> Stats {
    let total = u64::try_from(node_object::memory_field("MemTotal").unwrap_or(0)).unwrap_or(0);
    let free = u64::try_from(node_object::memory_field("MemAvailable").unwrap_or(0)).unwrap_or(0);
    let anonymous = u64::try_from(node_object::memory_field("AnonPages").unwrap_or(0)).unwrap_or(0);
    Stats {
        at: now,
        cpu_ns: machine_cpu_ns().unwrap_or(0),
        memory_usage_bytes: total.saturating_sub(free),
        memory_working_set_bytes: total.saturating_sub(free),
        memory_rss_bytes: anonymous,
        memory_limit_bytes: Some(total),
        ..Stats::default()
    }
}

/// Processor time that was not idle, of `/proc/stat`, whose unit is a hundredth of a second.
fn machine_cpu_ns() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy = fields
        .iter()
        .take(8)
        .enumerate()
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .map(|(_, value)| value);
    Some(busy.sum::<u64>() * 10_000_000)
}

fn boot_time() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Timestamp::from_second(seconds).ok()
}

/// A metric's head.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// `/metrics/resource`.
pub(super) async fn resource_metrics(node: &NodeContext, pods: &Pods) -> String {
    let measured = measure(node, pods).await;
    let own = node_stats(node.clock.now());
    let mut out = String::new();
    let each = |out: &mut String, value: &dyn Fn(&ContainerSeen, &Stats) -> String, name: &str| {
        for (view, _, containers) in &measured.pods {
            for (seen, stats) in containers {
                let (namespace, pod) = (view.def.namespace(), view.def.name());
                let labels = format!("container=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"", seen.name);
                let _ =
                    writeln!(out, "{name}{{{labels}}} {} {}", value(seen, stats), stats.at.as_millisecond());
            }
        }
    };
    head(
        &mut out,
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    each(&mut out, &|_, stats| seconds(stats.cpu_ns).to_string(), "container_cpu_usage_seconds_total");
    head(
        &mut out,
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
    );
    each(
        &mut out,
        &|_, stats| stats.memory_working_set_bytes.to_string(),
        "container_memory_working_set_bytes",
    );
    head(
        &mut out,
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
    );
    let started = |seen: &ContainerSeen, _: &Stats| {
        (seen.started_at.unwrap_or(seen.created_at).as_millisecond() as f64 / 1e3).to_string()
    };
    each(&mut out, &started, "container_start_time_seconds");
    let at = own.at.as_millisecond();
    head(
        &mut out,
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    let _ = writeln!(out, "node_cpu_usage_seconds_total {} {at}", seconds(own.cpu_ns));
    head(
        &mut out,
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    let _ = writeln!(out, "node_memory_working_set_bytes {} {at}", own.memory_working_set_bytes);
    for (name, kind, help, value) in [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            (|stats: &Stats| seconds(stats.cpu_ns).to_string()) as fn(&Stats) -> String,
        ),
        (
            "pod_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the pod in bytes",
            |stats: &Stats| stats.memory_working_set_bytes.to_string(),
        ),
    ] {
        head(&mut out, name, kind, help);
        for (view, whole, _) in &measured.pods {
            if let Some(stats) = whole {
                let (namespace, pod) = (view.def.namespace(), view.def.name());
                let at = stats.at.as_millisecond();
                let _ =
                    writeln!(out, "{name}{{namespace=\"{namespace}\",pod=\"{pod}\"}} {} {at}", value(stats));
            }
        }
    }
    head(
        &mut out,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    );
    let failed = measured.pods.iter().any(|(_, whole, _)| whole.is_none());
    let _ = writeln!(out, "resource_scrape_error {}", u8::from(failed));
    out
}

/// `/metrics/cadvisor`: those of cAdvisor's metrics that dashboards rest on.
pub(super) async fn cadvisor_metrics(node: &NodeContext, pods: &Pods) -> String {
    let measured = measure(node, pods).await;
    let mut out = String::new();
    let metrics: [Metric; 5] = [
        ("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.", |own| {
            seconds(own.cpu_ns).to_string()
        }),
        ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes.", |own| {
            own.memory_usage_bytes.to_string()
        }),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |own| {
            own.memory_working_set_bytes.to_string()
        }),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |own| own.memory_rss_bytes.to_string()),
        ("container_processes", "gauge", "Number of processes running inside the container.", |own| {
            own.pids.to_string()
        }),
    ];
    for (name, kind, help, value) in metrics {
        head(&mut out, name, kind, help);
        for (view, _, containers) in &measured.pods {
            for (seen, stats) in containers {
                let (namespace, pod) = (view.def.namespace(), view.def.name());
                let labels = format!(
                    "container=\"{}\",id=\"{}\",image=\"{}\",name=\"{}\",namespace=\"{namespace}\",pod=\"{pod}\"",
                    seen.name, seen.id, seen.image, seen.id
                );
                let _ = writeln!(out, "{name}{{{labels}}} {} {}", value(stats), stats.at.as_millisecond());
            }
        }
    }
    out
}

/// `/metrics`: the kubelet's own.
pub(super) fn own_metrics(node: &NodeContext, pods: &Pods) -> String {
    let views = pods.views();
    let running = views
        .iter()
        .filter(|view| view.observed.sandbox.as_ref().is_some_and(|sandbox| sandbox.ready))
        .count();
    let count = |state: &str| {
        let in_state = |seen: &&ContainerSeen| match &seen.state {
            State::Running => state == "running",
            State::Exited(_) => state == "exited",
            State::Created => state == "created",
        };
        views.iter().flat_map(|view| view.observed.containers.iter()).filter(in_state).count()
    };
    let mut out = String::new();
    head(&mut out, "kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.");
    let _ = writeln!(out, "kubelet_node_name{{node=\"{}\"}} 1", node.options.name);
    head(&mut out, "kubelet_running_pods", "gauge", "[BETA] Number of pods that have a running pod sandbox");
    let _ = writeln!(out, "kubelet_running_pods {running}");
    head(&mut out, "kubelet_running_containers", "gauge", "[BETA] Number of containers currently running");
    for state in ["created", "exited", "running"] {
        let _ = writeln!(out, "kubelet_running_containers{{container_state=\"{state}\"}} {}", count(state));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::tests::at;

    #[test]
    fn rates_are_counted_between_measures() {
        let rates = Rates::default();
        assert_eq!(rates.rate("a", at(0), 0), None);
        assert_eq!(rates.rate("a", at(10), 5_000_000_000), Some(500_000_000));
        assert_eq!(rates.rate("a", at(10), 9_000_000_000), Some(500_000_000));
        rates.keep(&[]);
        assert_eq!(rates.rate("a", at(20), 0), None);
    }
}
