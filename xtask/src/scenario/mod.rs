//! Black-box scenarios: what people do with kubectl, step by step, against a running clipper.
//!
//! A scenario is data: one command a step and what must come out. Each has a namespace of its own, named after it.

mod admission;
mod commands;
mod demo;
mod knative;
mod loops;
mod nodes;
mod pods;
mod restart;
mod server;
mod services;
mod why;
mod workloads;

use crate::cluster::{Cluster, Part, build};
use crate::kit::{kit, program, root};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Scenarios that run at the same time.
const AT_ONCE: usize = 4;
/// Of the kit: what the scenarios' pods are made of.
const IMAGES: [&str; 3] = ["agnhost.tar", "busybox.tar", "nginx.tar"];
const REQUEST_TIMEOUT: &str = "--request-timeout=60s";
/// What is told of what a step printed.
const TOLD_BYTES_MAX: usize = 4000;
/// How long a script may take.
const BASH_SECONDS_MAX: &str = "60";

/// What to run.
#[derive(Args, Default)]
pub struct Options {
    /// Only scenarios whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// This binary instead of a release build.
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// What a step must do.
enum Expect {
    /// Exit with 0 and print all of these.
    Prints(&'static [&'static str]),
    /// Exit with something else and print all of these.
    Fails(&'static [&'static str]),
}

/// What a step runs.
#[derive(Clone, Copy)]
enum Tool {
    /// The real kubectl, in the scenario's namespace.
    Kubectl,
    /// The real helm, in the scenario's namespace.
    Helm,
    /// The real kn, in the scenario's namespace.
    Kn,
    /// The binary itself, about the scenario's cluster and namespace.
    Clipper,
    /// A script for bash beside the node: `$K` is kubectl in the scenario's namespace, `$DIR` an empty folder of the scenario.
    Bash,
}

/// One command.
struct Step {
    tool: Tool,
    /// Arguments, separated by spaces; `'…'` keeps spaces together. A script as it is.
    command: &'static str,
    /// Its standard input.
    input: &'static str,
    expect: Expect,
}

const fn step(command: &'static str, prints: &'static [&'static str]) -> Step {
    fed(command, "", prints)
}

const fn fed(command: &'static str, input: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Kubectl, command, input, expect: Expect::Prints(prints) }
}

const fn fails(command: &'static str, input: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Kubectl, command, input, expect: Expect::Fails(prints) }
}

const fn helm(command: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Helm, command, input: "", expect: Expect::Prints(prints) }
}

const fn kn(command: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Kn, command, input: "", expect: Expect::Prints(prints) }
}

const fn clipper(command: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Clipper, command, input: "", expect: Expect::Prints(prints) }
}

const fn bash(command: &'static str, prints: &'static [&'static str]) -> Step {
    Step { tool: Tool::Bash, command, input: "", expect: Expect::Prints(prints) }
}

struct Scenario {
    name: &'static str,
    steps: &'static [Step],
}

/// Scenarios of one kind of cluster.
struct Group {
    part: Part,
    /// They change what all see, the node: one after another.
    alone: bool,
    scenarios: &'static [Scenario],
}

/// All of them.
const GROUPS: &[Group] = &[
    Group { part: Part::Server, alone: false, scenarios: server::SCENARIOS },
    Group { part: Part::Server, alone: false, scenarios: admission::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: workloads::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: pods::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: services::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: loops::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: commands::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: knative::SCENARIOS },
    Group { part: Part::Up, alone: false, scenarios: why::SCENARIOS },
    Group { part: Part::Up, alone: true, scenarios: nodes::SCENARIOS },
    Group { part: Part::Demo, alone: false, scenarios: demo::SCENARIOS },
];

/// Splits at spaces outside single quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// Runs a step: whether it ended with 0, and what it printed.
fn run_step(cluster: &Cluster, folder: &Path, namespace: &str, step: &Step) -> Result<(bool, String)> {
    let tool = |name: &str| {
        let mut command = cluster.enter(&program(name));
        command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["--namespace", namespace]);
        command
    };
    let mut command = match step.tool {
        Tool::Kubectl => {
            let mut command = tool("kubectl");
            command.arg(REQUEST_TIMEOUT).args(words(step.command));
            command
        }
        Tool::Helm => {
            let mut command = tool("helm");
            // Its caches and settings are the scenario's.
            command.args(words(step.command)).env("HOME", folder).current_dir(root().join("xtask/testdata"));
            command
        }
        Tool::Kn => {
            let mut command = cluster.enter(&program("kn"));
            command.arg("--kubeconfig").arg(cluster.kubeconfig()).args(words(step.command));
            command.args(["--namespace", namespace]).env("HOME", folder);
            command
        }
        Tool::Clipper => {
            let mut command = cluster.clipper(&words(step.command));
            command.args(["--namespace", namespace]);
            command
        }
        Tool::Bash => {
            let kubectl = format!(
                "{} --kubeconfig {} --namespace {namespace} {REQUEST_TIMEOUT}",
                program("kubectl").display(),
                cluster.kubeconfig().display()
            );
            let mut command = cluster.enter(Path::new("timeout"));
            command.args([BASH_SECONDS_MAX, "bash", "-euo", "pipefail", "-c", step.command]);
            command.env("K", kubectl).env("DIR", folder).current_dir(folder);
            command
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may be gone already.
        let _ = stdin.write_all(step.input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn run_one(cluster: &Cluster, scenario: &Scenario) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("scenario-{}-{}", std::process::id(), scenario.name));
    std::fs::create_dir(&folder)?;
    let result = run_steps(cluster, &folder, scenario);
    std::fs::remove_dir_all(&folder)?;
    result.map_err(|error| anyhow::anyhow!("{error:#}\n  {}", around(cluster, scenario.name)))
}

/// What the cluster says of itself where a scenario failed: on another machine nobody can ask it afterwards.
fn around(cluster: &Cluster, namespace: &str) -> String {
    let questions = [
        "get nodes -o 'jsonpath={range .items[*]}{.metadata.name} {.spec.taints}{\"\\n\"}{range .status.conditions[*]}{.type}={.status} {.message}{\"\\n\"}{end}{end}'",
        "get pods -o wide",
        "get events --sort-by=.lastTimestamp",
    ];
    let ask = |command: &&'static str| {
        let text = run_step(cluster, Path::new("/"), namespace, &step(command, &[]));
        text.map_or_else(|error| format!("{error:#}"), |(_, text)| shortened(&text).trim_end().to_owned())
    };
    questions.iter().map(ask).collect::<Vec<_>>().join("\n").replace('\n', "\n  ")
}

fn run_steps(cluster: &Cluster, folder: &Path, scenario: &Scenario) -> Result<()> {
    let namespace = scenario.name;
    let mut make = cluster.enter(&program("kubectl"));
    make.arg("--kubeconfig").arg(cluster.kubeconfig()).args(["create", "namespace", namespace]);
    crate::kit::output(make, "").context("the namespace cannot be made")?;
    for step in scenario.steps {
        let (done, text) = run_step(cluster, folder, namespace, step)?;
        let (wanted, prints) = match &step.expect {
            Expect::Prints(prints) => (true, prints),
            Expect::Fails(prints) => (false, prints),
        };
        let missing: Vec<_> = prints.iter().filter(|word| !text.contains(**word)).collect();
        if done != wanted || !missing.is_empty() {
            bail!(
                "{}\n  succeeded: {done}, missing: {missing:?}\n  {}",
                step.command,
                shortened(&text).replace('\n', "\n  ")
            );
        }
    }
    Ok(())
}

/// The end of what was printed.
fn shortened(text: &str) -> &str {
    let from = text.len().saturating_sub(TOLD_BYTES_MAX);
    let from = (from..text.len()).find(|index| text.is_char_boundary(*index)).unwrap_or(0);
    &text[from..]
}

/// Makes the node as it was, however a scenario left it.
fn restore_node(cluster: &Cluster) -> Result<()> {
    let mut command = cluster.enter(&program("kubectl"));
    command.arg("--kubeconfig").arg(cluster.kubeconfig()).args([
        "patch",
        "node",
        "node1",
        "--type=merge",
        "-p",
    ]);
    command.arg(r#"{"metadata":{"labels":{"disk":null}},"spec":{"taints":null,"unschedulable":null}}"#);
    crate::kit::output(command, "").map(drop)
}

/// Runs the scenarios and prints how many passed.
///
/// # Errors
/// Some failed: each is told with the step, what came out and how the cluster was.
pub fn run(options: &Options) -> Result<()> {
    crate::knative::ensure()?;
    let binary = options.binary.clone().map_or_else(build, Ok)?;
    crate::leftovers::ensure()?;
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let mut results = Vec::new();
    // What the control plane does alone, it does wherever its objects are.
    for part in [Part::Server, Part::ServerOnEtcd, Part::Up, Part::Demo] {
        let served = if part == Part::ServerOnEtcd { Part::Server } else { part };
        let of = |alone| {
            let groups = GROUPS.iter().filter(move |group| group.part == served && group.alone == alone);
            groups.flat_map(|group| group.scenarios).filter(|own| wanted(own.name)).collect::<Vec<_>>()
        };
        let (together, alone) = (of(false), of(true));
        let restarts = part == Part::Up && wanted("restart");
        if together.is_empty() && alone.is_empty() && !restarts {
            continue;
        }
        let mut cluster = Cluster::prepare(&format!("scen{}", std::process::id()), &binary, part)?;
        let before = crate::leftovers::Network::of(&cluster)?;
        cluster.up()?;
        if part == Part::Up {
            cluster.import(&IMAGES.map(|name| kit().join("images").join(name)))?;
        }
        results.extend(at_once(&cluster, &together));
        for scenario in alone {
            results.push(told(scenario.name, || run_one(&cluster, scenario)));
            restore_node(&cluster)?;
        }
        if restarts {
            results.push(told("restart", || restart::adopts(&mut cluster)));
            results.push(told("nothing-is-left", || restart::leaves_nothing(&mut cluster, &before)));
        }
    }
    let passed = results.iter().filter(|passed| **passed).count();
    let failed = results.len() - passed;
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 {
        bail!("{failed} scenarios failed, {passed} passed");
    }
    Ok(())
}

/// Runs some of them at the same time.
fn at_once(cluster: &Cluster, scenarios: &[&'static Scenario]) -> Vec<bool> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let take = || scenarios.get(next.fetch_add(1, Ordering::Relaxed));
        std::iter::from_fn(take)
            .map(|scenario| told(scenario.name, || run_one(cluster, scenario)))
            .collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_else(|_| vec![false])).collect()
    })
}

/// Runs one and says how it went.
fn told(name: &str, run: impl FnOnce() -> Result<()>) -> bool {
    let began = Instant::now();
    let result = run();
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(()) => println!("scenario {name}: ok ({seconds:.1} s)"),
        Err(error) => println!("scenario {name}: FAILED ({seconds:.1} s)\n  {error:#}"),
    }
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_spaces_together() {
        assert_eq!(words("a 'b c'  d"), ["a", "b c", "d"]);
    }

    #[test]
    fn names_are_unique_and_can_name_a_namespace() {
        let names: Vec<_> =
            GROUPS.iter().flat_map(|group| group.scenarios).map(|scenario| scenario.name).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
            assert!(!names[..index].contains(name), "{name}");
        }
    }
}
