//! What outlives the process: containers, their output and the ways to them. And what does not outlive `clipper down`.

use crate::cluster::Cluster;
use crate::kit::{output, program};
use crate::leftovers::{Network, Traces};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "restart";
/// Lines that the counting pod says before and after: enough that some are said at any moment of the restart.
const LINES_MIN: usize = 20;
/// How long to look for them.
const LINES_WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: counter}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: 'busybox:1.37', command: [sh, -c, 'i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done']}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'nginx:1.28'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30999}]}
";

fn kubectl(cluster: &Cluster, words: &[&str], input: &str) -> Result<String> {
    let mut command = cluster.enter(&program("kubectl"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["--namespace", NAMESPACE]).args(words);
    output(command, input)
}

fn page(cluster: &Cluster) -> Result<String> {
    let mut command = cluster.enter(Path::new("curl"));
    command.args(["-sS", "-m", "5", "--retry", "20", "--retry-connrefused", "--retry-max-time", "20"]);
    command.arg("http://172.31.0.1:30999/");
    output(command, "")
}

/// The file that the counting pod's lines go to.
fn log_file(cluster: &Cluster) -> Result<PathBuf> {
    let pods =
        std::fs::read_dir(cluster.data_dir().join("logs/pods"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut own = pods.filter(|path| path.to_string_lossy().contains(&format!("/{NAMESPACE}_counter_")));
    Ok(own.next().context("the pod has no logs")?.join("c/0.log"))
}

/// Waits until the counting pod has said this many lines more.
fn more_lines(file: &Path) -> Result<()> {
    let count = || Ok::<_, std::io::Error>(std::fs::read_to_string(file)?.lines().count());
    let (began, first) = (Instant::now(), count()?);
    while count()? < first + LINES_MIN {
        ensure!(began.elapsed() < LINES_WAIT_MAX, "the pod says nothing more in {}", file.display());
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok(())
}

/// Kills the process, starts it again, and compares.
///
/// # Errors
/// What did not outlive it.
pub(super) fn adopts(cluster: &mut Cluster) -> Result<()> {
    kubectl(cluster, &["create", "namespace", NAMESPACE], "")?;
    kubectl(cluster, &["apply", "-f", "-"], PODS)?;
    kubectl(cluster, &["wait", "pod/counter", "--for=condition=Ready", "--timeout=60s"], "")?;
    kubectl(cluster, &["rollout", "status", "deployment/web", "--timeout=60s"], "")?;
    ensure!(page(cluster)?.contains("nginx"), "the service does not answer");
    let what = "jsonpath={range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} \
                {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}{\"\\n\"}{end}";
    let state = |cluster: &Cluster| kubectl(cluster, &["get", "pods", "-o", what], "");
    let (before, file) = (state(cluster)?, log_file(cluster)?);
    more_lines(&file)?;
    cluster.kill()?;
    // Nobody is there but the containers and the kernel's rules.
    more_lines(&file)?;
    ensure!(page(cluster)?.contains("nginx"), "the service does not answer while the process is gone");
    cluster.up()?;
    more_lines(&file)?;
    kubectl(cluster, &["wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"], "")?;
    let after = state(cluster)?;
    ensure!(before == after, "the containers are not the same:\n{before}\nbecame\n{after}");
    ensure!(kubectl(cluster, &["exec", "counter", "--", "echo", "in"], "")?.contains("in"), "no exec");
    ensure!(page(cluster)?.contains("nginx"), "the service does not answer afterwards");
    let said = kubectl(cluster, &["logs", "counter"], "")?;
    if let Some((index, line)) = said.lines().enumerate().find(|(index, line)| *line != index.to_string()) {
        bail!("line {index} of the log is {line:?}: lines were lost or said twice");
    }
    Ok(())
}

/// Takes the cluster down and looks for what is left.
///
/// # Errors
/// What is left, a line each.
pub(super) fn leaves_nothing(cluster: &mut Cluster, before: &Network) -> Result<()> {
    let traces = Traces::of(cluster)?;
    cluster.down()?;
    let left = traces.left(cluster, before)?;
    ensure!(left.is_empty(), "clipper down left:\n  {}", left.join("\n  "));
    // It may be repeated.
    cluster.down()
}
