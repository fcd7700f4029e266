//! Black-box scenarios: what people do with kubectl, step by step, against a running clipper.
//!
//! A scenario is data: one command a step and what must come out. Each has a namespace of its own, named after it.

use crate::cluster::{Cluster, Part, build};
use crate::kit::program;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

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

/// One command.
struct Step {
    /// Arguments of kubectl, separated by spaces; `'…'` keeps spaces together.
    kubectl: &'static str,
    /// Its standard input.
    input: &'static str,
    expect: Expect,
}

const fn step(kubectl: &'static str, prints: &'static [&'static str]) -> Step {
    Step { kubectl, input: "", expect: Expect::Prints(prints) }
}

const fn fed(kubectl: &'static str, input: &'static str, prints: &'static [&'static str]) -> Step {
    Step { kubectl, input, expect: Expect::Prints(prints) }
}

const fn fails(kubectl: &'static str, input: &'static str, prints: &'static [&'static str]) -> Step {
    Step { kubectl, input, expect: Expect::Fails(prints) }
}

struct Scenario {
    name: &'static str,
    part: Part,
    steps: &'static [Step],
}

/// All of them.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "discovery",
        part: Part::Server,
        steps: &[
            step("version", &["Server Version: v1.37.2+clipper"]),
            step("api-versions", &["apps/v1\n", "batch/v1\n", "v1\n"]),
            step("api-resources", &["pods", "po", "deployments", "deploy", "apps/v1", "true", "Deployment"]),
            step("get --raw /readyz", &["ok"]),
        ],
    },
    Scenario {
        name: "config-maps",
        part: Part::Server,
        steps: &[
            step("create configmap one --from-literal=a=1 --from-literal=b=2", &["configmap/one created"]),
            fails("create configmap one --from-literal=a=1", "", &["configmaps \"one\" already exists"]),
            step("get configmap one -o jsonpath={.data.a}{.data.b}", &["12"]),
            step("get configmap one", &["NAME", "DATA", "AGE", "one", "2"]),
            step("label configmap one tier=front", &["configmap/one labeled"]),
            step("get configmap -l tier=front -o name", &["configmap/one"]),
            step("get configmap --field-selector metadata.name=one -o name", &["configmap/one"]),
            step("annotate configmap one note=hello", &["configmap/one annotated"]),
            step(
                "patch configmap one --type=merge -p '{\"data\":{\"c\":\"3\",\"a\":null}}'",
                &["configmap/one patched"],
            ),
            step(
                "patch configmap one --type=json -p '[{\"op\":\"test\",\"path\":\"/data/c\",\"value\":\"3\"},{\"op\":\"add\",\"path\":\"/data/d\",\"value\":\"4\"}]'",
                &["patched"],
            ),
            step("get configmap one -o jsonpath={.data}", &["{\"b\":\"2\",\"c\":\"3\",\"d\":\"4\"}"]),
            fails(
                "patch configmap one --type=json -p '[{\"op\":\"test\",\"path\":\"/data/c\",\"value\":\"9\"}]'",
                "",
                &["The request is invalid"],
            ),
            fails("get configmap none", "", &["Error from server (NotFound): configmaps \"none\" not found"]),
            step("delete configmap one", &["configmap \"one\" deleted"]),
            fails("get configmap one", "", &["NotFound"]),
        ],
    },
    Scenario {
        name: "apply",
        part: Part::Server,
        steps: &[
            fed("apply -f -", MAP_ONE, &["configmap/settings created"]),
            fed("apply -f -", MAP_ONE, &["configmap/settings unchanged"]),
            fed("apply -f -", MAP_TWO, &["configmap/settings configured"]),
            step("get configmap settings -o jsonpath={.data}", &["{\"b\":\"3\"}"]),
            fed(
                "apply --server-side --field-manager=other --force-conflicts -f -",
                MAP_ONE,
                &["serverside-applied"],
            ),
            fails(
                "apply --server-side --field-manager=third -f -",
                MAP_TWO,
                &["conflict with \"other\"", ".data.b"],
            ),
            fails("apply -f -", MAP_UNKNOWN, &["unknown field \"daat\""]),
        ],
    },
    Scenario {
        name: "workloads-are-validated",
        part: Part::Server,
        steps: &[
            step(
                "create deployment web --image=example.com/web:1 --replicas=2",
                &["deployment.apps/web created"],
            ),
            step("get deployment web", &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "web"]),
            step(
                "get deployment web -o jsonpath={.spec.strategy.type}/{.spec.revisionHistoryLimit}/{.metadata.generation}",
                &["RollingUpdate/10/1"],
            ),
            step("scale deployment web --replicas=5", &["deployment.apps/web scaled"]),
            step("get deployment web -o jsonpath={.spec.replicas}/{.metadata.generation}", &["5/2"]),
            step("set image deployment/web web=example.com/web:2", &["image updated"]),
            fails(
                "patch deployment web -p '{\"spec\":{\"replicas\":-1}}'",
                "",
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            fails(
                "patch deployment web -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}'",
                "",
                &["field is immutable"],
            ),
        ],
    },
];

const MAP_ONE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: '1', b: '2'}\n";
const MAP_TWO: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {b: '3'}\n";
const MAP_UNKNOWN: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndaat: {b: '3'}\n";

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

fn kubectl(cluster: &Cluster, namespace: &str, words: &[String], input: &str) -> Result<(bool, String)> {
    let mut command: Command = cluster.enter(&program("kubectl"));
    command
        .args(["--kubeconfig"])
        .arg(cluster.kubeconfig())
        .args(["--namespace", namespace, "--request-timeout=60s"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start kubectl")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A kubectl that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn run_one(cluster: &Cluster, scenario: &Scenario) -> Result<()> {
    let namespace = scenario.name;
    let create = ["create", "namespace", namespace].map(str::to_owned);
    let (made, text) = kubectl(cluster, namespace, &create, "")?;
    if !made {
        bail!("the namespace cannot be made: {text}");
    }
    for step in scenario.steps {
        let (done, text) = kubectl(cluster, namespace, &words(step.kubectl), step.input)?;
        let (wanted, prints) = match &step.expect {
            Expect::Prints(prints) => (true, prints),
            Expect::Fails(prints) => (false, prints),
        };
        let missing: Vec<_> = prints.iter().filter(|word| !text.contains(**word)).collect();
        if done != wanted || !missing.is_empty() {
            bail!(
                "kubectl {}\n  succeeded: {done}, missing: {missing:?}\n  {}",
                step.kubectl,
                text.replace('\n', "\n  ")
            );
        }
    }
    Ok(())
}

/// Runs the scenarios and prints how many passed.
///
/// # Errors
/// Some failed: each is told with the step and what came out.
pub fn run(options: &Options) -> Result<()> {
    crate::kit::ensure()?;
    let binary = options.binary.clone().map_or_else(build, Ok)?;
    let (mut passed, mut failed) = (0, 0);
    for part in [Part::Server, Part::Up] {
        let wanted = |scenario: &&Scenario| {
            scenario.part == part
                && options.only.as_ref().is_none_or(|only| scenario.name.contains(only.as_str()))
        };
        let scenarios: Vec<_> = SCENARIOS.iter().filter(wanted).collect();
        if scenarios.is_empty() {
            continue;
        }
        let cluster = Cluster::start(&format!("scen{}", std::process::id()), &binary, part)?;
        for scenario in scenarios {
            match run_one(&cluster, scenario) {
                Ok(()) => {
                    passed += 1;
                    println!("scenario {}: ok", scenario.name);
                }
                Err(error) => {
                    failed += 1;
                    println!("scenario {}: FAILED\n  {error:#}", scenario.name);
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 || passed == 0 {
        bail!("{failed} scenarios failed, {passed} passed");
    }
    Ok(())
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
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            assert!(
                scenario.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'),
                "{}",
                scenario.name
            );
            assert!(SCENARIOS[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
    }
}
