//! The measurements, one after another.

use super::rows::{self, Figure, Figures};
use super::subject::{SERVER, Start, Subject};
use super::{Part, scripts};
use crate::kit::{kit, output, program, root, shared, target};
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Starts from nothing, of which the median counts.
const STARTS: usize = 3;
/// How long a system may calm down before it is called idle.
const SETTLE_SECONDS: u32 = 20;
/// How long idleness is measured.
const IDLE_SECONDS: u32 = 40;
/// How many idle pods are measured at once.
const IDLE_PODS: u32 = 20;
/// Nodes and pods that exist in the API only.
const FAKE_NODES: u32 = 200;
const FAKE_PODS: u32 = 20_000;
/// What pods are made of; podstart.py gives it the command.
const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2";
const IMAGE_TARBALL: &str = "images/busybox.tar";
const KIB: f64 = 1024.0;

/// All figures of a Clipper.
///
/// # Errors
/// What could not be measured.
pub(super) fn clipper(binary: &Path, python: &Path) -> Result<Figures> {
    let name = format!("bench{}", std::process::id());
    let start = |part| Subject::clipper(&name, binary, part);
    let mut figures = node(&start, STARTS, python)?;
    figures.insert(Figure::BytesPerPod, fake_pods(&start(Part::Server)?.0, python)?);
    figures.extend(services()?);
    figures.extend(knative(binary)?);
    Ok(figures)
}

/// Knative's figures alone.
///
/// # Errors
/// What could not be measured.
pub(super) fn knative(binary: &Path) -> Result<Figures> {
    let (subject, _) = Subject::clipper(&format!("bench{}", std::process::id()), binary, Part::Up)?;
    super::knative::knative(&subject)
}

/// The figures of upstream, but those that only our own code has a measurement for.
///
/// # Errors
/// What could not be measured.
pub(super) fn peer(python: &Path) -> Result<Figures> {
    let start = |part| Subject::peer("benchpeer", part);
    let mut figures = node(&start, 1, python)?;
    figures.insert(Figure::BytesPerPod, fake_pods(&start(Part::Server)?.0, python)?);
    Ok(figures)
}

/// What is measured on a whole node.
fn node(start: &dyn Fn(Part) -> Result<(Subject, Start)>, starts: usize, python: &Path) -> Result<Figures> {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..starts {
        // One at a time: they have the same name.
        drop(last.take());
        let (subject, time) = start(Part::Up)?;
        println!("API ready after {:.2} s, node after {:.2} s", time.api, time.node);
        times.push(time);
        last = Some(subject);
    }
    let subject = last.context("nothing was started")?;
    let mut figures = Figures::from([
        (Figure::ApiReady, median(times.iter().map(|time| time.api))),
        (Figure::NodeReady, median(times.iter().map(|time| time.node))),
    ]);
    subject.import(&kit().join(IMAGE_TARBALL))?;
    figures.extend(idle(&subject)?);
    let mut starts = subject.enter(python);
    starts.arg(shared().join("bench/podstart.py")).arg(subject.kubeconfig()).args([IMAGE, "15", "40"]);
    let text = told(starts)?;
    figures.extend(rows::pod_starts(&text).context("podstart.py printed no figures")?);
    let mut api = subject.enter(&shared().join("bench/api.sh"));
    api.arg(program("kubectl")).args([SERVER, &token(&subject)?]);
    let text = told(api)?;
    figures.extend(rows::api(&text).context("api.sh printed no figures, or answers were no successes")?);
    Ok(figures)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a script, prints what it says and returns it.
fn told(command: Command) -> Result<String> {
    let text = output(command, "")?;
    print!("{text}");
    Ok(text)
}

/// What it costs to do nothing: with one pod, and with more.
fn idle(subject: &Subject) -> Result<Figures> {
    let one = pods(1);
    subject.kubectl(&["apply", "-f", "-"], &one)?;
    ready(subject)?;
    footprint(subject, SETTLE_SECONDS)?;
    let [pss, cpu, writes] = footprint(subject, IDLE_SECONDS)?;
    subject.kubectl(&["apply", "-f", "-"], &pods(1 + IDLE_PODS))?;
    ready(subject)?;
    let [more, ..] = footprint(subject, SETTLE_SECONDS)?;
    subject.kubectl(&["delete", "pod", "-l", "bench=idle", "--grace-period=0", "--force"], "")?;
    Ok(Figures::from([
        (Figure::IdlePss, pss),
        (Figure::IdleCpu, cpu),
        (Figure::IdleWrites, writes),
        (Figure::PssPerPod, (more - pss) / f64::from(IDLE_PODS)),
    ]))
}

fn pods(count: u32) -> String {
    (0..count).fold(String::new(), |mut text, index| {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: idle-{index}, labels: {{bench: idle}}}}\n\
             spec: {{containers: [{{name: c, image: '{IMAGE}', command: [sleep, '3600'], \
             imagePullPolicy: IfNotPresent}}]}}\n"
        );
        text
    })
}

fn ready(subject: &Subject) -> Result<()> {
    let wait = ["wait", "pod", "-l", "bench=idle", "--for=condition=Ready", "--timeout=120s"];
    subject.kubectl(&wait, "").map(drop)
}

/// PSS in MB, CPU in percent of a core, and KiB written a second.
pub(super) fn footprint(subject: &Subject, seconds: u32) -> Result<[f64; 3]> {
    let mut command = Command::new("python3");
    command.arg(shared().join("bench/footprint.py")).arg(seconds.to_string());
    command.args(subject.processes()?.iter().map(u32::to_string));
    let text = told(command)?;
    rows::footprint(&text).context("footprint.py printed no total")
}

/// A bearer token of an administrator.
fn token(subject: &Subject) -> Result<String> {
    let account = "--serviceaccount=kube-system:bench";
    let binding = ["create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", account];
    subject.kubectl(&["-n", "kube-system", "create", "serviceaccount", "bench"], "")?;
    subject.kubectl(&binding, "")?;
    let token = subject.kubectl(&["-n", "kube-system", "create", "token", "bench", "--duration=2h"], "")?;
    Ok(token.trim().to_owned())
}

/// KB of the control plane's memory for each pod of many.
fn fake_pods(subject: &Subject, python: &Path) -> Result<f64> {
    let token = token(subject)?;
    let [before, ..] = footprint(subject, SETTLE_SECONDS)?;
    let mut fill = subject.enter(python);
    fill.arg(scripts().join("fake_pods.py")).args([SERVER, &token]);
    told({
        fill.args([FAKE_NODES.to_string(), FAKE_PODS.to_string()]);
        fill
    })?;
    let [after, ..] = footprint(subject, SETTLE_SECONDS)?;
    Ok((after - before) * KIB / f64::from(FAKE_PODS))
}

/// How fast rules of services reach the kernel: an example of `net`, in a namespace that ends with it.
fn services() -> Result<Figures> {
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--locked", "--package", "net", "--example", "services"]);
    build.current_dir(root());
    crate::kit::call(build)?;
    let mut command = Command::new("unshare");
    command.arg("--net").arg(target().join("release/examples/services"));
    let text = told(command)?;
    let figure = |word: &str, after: &str| {
        let line = text.lines().find(|line| line.starts_with(word));
        line.and_then(|line| rows::after(line, after)).context("the example printed no figures")
    };
    Ok(Figures::from([
        (Figure::Services, figure("programmed", ": ")? / 1000.0),
        (Figure::ServiceAdded, figure("added", "p50")?),
    ]))
}
