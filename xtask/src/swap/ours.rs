//! Our scheduler and controllers, each a process of its own, on upstream's kube-apiserver and etcd.
//!
//! There is no node: kubectl plays its part. It says of every pod that has been bound to it that it is ready, and confirms deletions.

use super::{Kubectl, NAMESPACE, Parts};
use crate::kit::{call, kit, output, shared};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NODE: &str = "played";
/// Between two looks at the pods of the node that is played.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Looks between two signs of life of the node: well below the 40 s after which it counts as lost.
const LOOKS_PER_HEARTBEAT: u32 = 50;

/// Upstream's control plane without scheduler and controllers. Dropped, it leaves nothing behind.
struct Peer(String);

impl Peer {
    fn start(name: &str) -> Result<Self> {
        let own = Self(name.to_owned());
        call(own.script("up").arg("--control-only")).context("upstream's API server does not start")?;
        Ok(own)
    }

    fn script(&self, verb: &str) -> Command {
        let mut command = Command::new(shared().join("conformance/peer"));
        command.args([verb, &self.0]).env("KIT", kit());
        command
    }

    fn enter(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        kit().join("peer").join(&self.0).join("pki").join(format!("{user}.conf"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Err(error) = call(self.script("down")) {
            eprintln!("{error:#}");
        }
    }
}

/// Pods are made and bound, by our hands.
pub(super) fn run(binary: &Path, parts: &mut Parts) -> Result<()> {
    let peer = Peer::start(&format!("swap{}", std::process::id()))?;
    let enter = |program: &Path| peer.enter(program);
    let kubectl = Kubectl { enter: &enter, kubeconfig: peer.kubeconfig("admin") };
    kubectl.apply_in_vain()?;
    // Upstream gives its controllers identities of their own; ours are one user, who has to be able to do all of it.
    for (part, user) in [("controllers", "admin"), ("scheduler", "scheduler")] {
        let mut command = peer.enter(binary);
        command.arg(part).arg("--kubeconfig").arg(peer.kubeconfig(user));
        parts.start(part, command)?;
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let node = scope.spawn(|| play_node(&kubectl, &done));
        let rolled_out = kubectl.rolls_out();
        done.store(true, Ordering::Relaxed);
        let played = node.join().map_err(|_| anyhow::anyhow!("the played node panicked"))?;
        rolled_out.and(played)
    })?;
    let nodes = kubectl.run(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"], "")?;
    ensure!(nodes.split_whitespace().eq([NODE, NODE]), "the pods are on {nodes:?}");
    parts.end()
}

fn now() -> Result<String> {
    Ok(output(Command::new("date").args(["-u", "+%FT%TZ"]), "")?.trim().to_owned())
}

/// Plays a node until `done`.
fn play_node(kubectl: &Kubectl<'_>, done: &AtomicBool) -> Result<()> {
    let resources = json!({"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
        "status": {"capacity": resources, "allocatable": resources, "conditions": [ready(&now()?)]}});
    kubectl.run(&["create", "-f", "-"], &node.to_string())?;
    let mut looks = 0;
    while !done.load(Ordering::Relaxed) {
        looks += 1;
        if looks % LOOKS_PER_HEARTBEAT == 0 {
            let patch = json!({"status": {"conditions": [ready(&now()?)]}}).to_string();
            kubectl.run(&["patch", "node", NODE, "--subresource=status", "-p", &patch], "")?;
        }
        let pods: Value = serde_json::from_str(&kubectl.run(&["get", "pods", "-o", "json"], "")?)?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            play_pod(kubectl, pod)?;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

fn ready(now: &str) -> Value {
    json!({"type": "Ready", "status": "True", "reason": "Played", "message": "kubectl says so",
        "lastHeartbeatTime": now, "lastTransitionTime": now})
}

/// What a node would say of a pod.
fn play_pod(kubectl: &Kubectl<'_>, pod: &Value) -> Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod has no name")?;
    if pod["spec"]["nodeName"] != NODE {
        return Ok(());
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let words =
            ["delete", "pod", name, "--grace-period=0", "--force", "--ignore-not-found", "--wait=false"];
        return kubectl.run(&words, "").map(drop);
    }
    if pod["status"]["phase"] == "Running" {
        return Ok(());
    }
    let now = now()?;
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions: Vec<_> = ["Initialized", "ContainersReady", "Ready"].map(condition).into();
    let patch =
        json!({"status": {"phase": "Running", "startTime": now, "conditions": conditions}}).to_string();
    let patched = kubectl.run(&["patch", "pod", name, "--subresource=status", "-p", &patch], "");
    // It may have been deleted since the look.
    match kubectl.run(&["get", "pod", name, "--ignore-not-found", "-o", "name"], "")?.trim() {
        "" => Ok(()),
        _ => patched.map(drop).with_context(|| format!("pod {name} in {NAMESPACE}")),
    }
}
