//! `cargo xtask conformance knative`: Knative's own suites against a cluster that lives in a network namespace of its own.

use crate::cluster::{Cluster, Part, build};
use crate::conformance::AGAIN_MAX;
use crate::kit::{call, kit, output, program, root, shared};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names that have passed twice, as `SUITE NAME`, a line each.
const GREEN: &str = "conformance/green-knative.txt";

/// What the suites expect to find; facts of upstream's `test/config`.
const EXPECTED: &str = include_str!("../testdata/knative.yaml");

/// Settings that upstream's own run presets: ConfigMap of `knative-serving`, key, value.
const PRESETS: &[(&str, &str, &str)] = &[
    ("config-domain", "example.com", ""),
    ("config-deployment", "progress-deadline", "120s"),
    ("config-network", "autocreate-cluster-domain-claims", "true"),
    ("config-observability", "logging.enable-request-log", "true"),
];

/// A suite: its program, the namespace of the system that it looks at, and how it is called.
struct Suite {
    program: &'static str,
    system_namespace: &'static str,
    flags: &'static [&'static str],
}

const SUITES: &[Suite] = &[
    Suite {
        program: "serving-api-v1",
        system_namespace: "knative-serving",
        flags: &["-test.parallel=8", "-disable-logstream", "-enable-beta"],
    },
    Suite {
        program: "serving-runtime",
        system_namespace: "knative-serving",
        flags: &["-test.parallel=8", "-disable-logstream", "-enable-beta"],
    },
    Suite {
        program: "eventing-conformance",
        system_namespace: "knative-eventing",
        flags: &[
            "-test.parallel=8",
            "-brokers=eventing.knative.dev/v1:MTChannelBasedBroker",
            "-channels=messaging.knative.dev/v1:Channel,messaging.knative.dev/v1:InMemoryChannel",
            "-sources=sources.knative.dev/v1:PingSource,sources.knative.dev/v1:ApiServerSource,sources.knative.dev/v1:ContainerSource",
        ],
    },
];

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    Pass,
    Fail,
    Skip,
}

/// Runs the suites and prints what passed, failed and was skipped, each apart.
///
/// # Errors
/// A name that has passed twice did not pass now, or the suites could not run.
pub fn run(out: &Path, only: Option<&str>, keep: bool) -> Result<()> {
    let wanted = |_: &Suite| Some(only.map(str::to_owned));
    let ended = run_some(out, &wanted, keep, false)?;
    judge(&ended, only.is_some())
}

/// What CI runs: the names that have passed twice, each of which must pass; as in the official suite, what fails among others is
/// tried once more alone, and told.
///
/// # Errors
/// One of them did not pass, or the suites could not run.
pub fn ratchet() -> Result<()> {
    let green = green()?;
    let wanted = |suite: &Suite| {
        let names = green.iter().filter_map(|line| line.strip_prefix(suite.program)?.strip_prefix(' '));
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| Some(exactly(&names)))
    };
    let ended = run_some(Path::new("conformance-out"), &wanted, false, true)?;
    judge(&ended, false)
}

/// Whether there is no name yet that must stay green.
///
/// # Errors
/// The file cannot be read.
pub fn ratchet_is_empty() -> Result<bool> {
    Ok(green()?.is_empty())
}

/// The pattern of tests with these names.
fn exactly(names: &[&str]) -> String {
    format!("^({})$", names.join("|"))
}

/// Runs those suites for which `wanted` says something: which tests, if not all. `again`: tries the few that fail once more.
fn run_some(
    out: &Path,
    wanted: &dyn Fn(&Suite) -> Option<Option<String>>,
    keep: bool,
    again: bool,
) -> Result<BTreeMap<String, Ended>> {
    ensure()?;
    let binary = build()?;
    let cluster = Cluster::start(&format!("kn{}", std::process::id()), &binary, Part::Up)?;
    prepare(&cluster)?;
    let mut ended = BTreeMap::new();
    for suite in SUITES {
        let Some(only) = wanted(suite) else { continue };
        let mut found = suite_run(&cluster, suite, out, only.as_deref(), None)?;
        let failed = found.iter().filter(|(_, own)| **own == Ended::Fail).map(|(name, _)| name.clone());
        let failed: Vec<String> = failed.collect();
        if again && (1..=AGAIN_MAX).contains(&failed.len()) {
            let only = exactly(&failed.iter().map(String::as_str).collect::<Vec<_>>());
            let second =
                suite_run(&cluster, suite, &out.join("again"), Some(&only), Some("-test.parallel=1"))?;
            let passed = second.iter().filter(|(_, own)| **own == Ended::Pass);
            passed.for_each(|(name, _)| println!("passed only alone: {name}"));
            found.extend(second);
        }
        let count = |wanted: Ended| found.values().filter(|own| **own == wanted).count();
        let (passed, failed, skipped) = (count(Ended::Pass), count(Ended::Fail), count(Ended::Skip));
        println!("{}: {passed} passed, {failed} failed, {skipped} skipped", suite.program);
        let others = found.iter().filter(|(_, own)| **own != Ended::Pass);
        others.for_each(|(name, own)| println!("  {own:?}: {name}"));
        ended.extend(found.into_iter().map(|(name, own)| (format!("{} {name}", suite.program), own)));
    }
    if keep {
        cluster.keep();
    }
    Ok(ended)
}

fn green() -> Result<BTreeSet<String>> {
    let path = root().join(GREEN);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Holds what passed against what must.
fn judge(ended: &BTreeMap<String, Ended>, is_part: bool) -> Result<()> {
    let red: Vec<String> = green()?
        .into_iter()
        .filter(|name| match ended.get(name) {
            None => !is_part,
            Some(ended) => *ended != Ended::Pass,
        })
        .collect();
    if !red.is_empty() {
        bail!("these have passed before and do not now:\n{}", red.join("\n"));
    }
    Ok(())
}

/// Builds what is missing of the suites and their images.
///
/// # Errors
/// They do not build.
pub fn ensure() -> Result<()> {
    crate::kit::ensure()?;
    let scripts = shared().join("conformance");
    if !SUITES.iter().all(|suite| test_program(suite).exists()) || !program("kn").exists() {
        call(Command::new(scripts.join("build")).arg("knative"))?;
    }
    if images()?.is_empty() {
        call(Command::new(scripts.join("images")))?;
    }
    Ok(())
}

fn test_program(suite: &Suite) -> PathBuf {
    program(&format!("{}.test", suite.program))
}

fn images() -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(kit().join("images"))?.filter_map(|entry| Some(entry.ok()?.path()));
    let is_knatives =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kn-"));
    let mut found: Vec<_> = all.filter(is_knatives).collect();
    found.sort();
    Ok(found)
}

fn prepare(cluster: &Cluster) -> Result<()> {
    cluster.import(&images()?)?;
    let kubectl = |words: &[&str], input: &str| {
        let mut command = cluster.enter(&program("kubectl"));
        command.arg(format!("--kubeconfig={}", cluster.kubeconfig().display())).args(words);
        output(command, input)
    };
    kubectl(&["apply", "-f", "-"], EXPECTED)?;
    for (map, key, value) in PRESETS {
        let patch = serde_json::json!({"data": {*key: value}}).to_string();
        kubectl(&["patch", "configmap", map, "-n", "knative-serving", "--type=merge", "-p", &patch], "")?;
    }
    Ok(())
}

fn suite_run(
    cluster: &Cluster,
    suite: &Suite,
    out: &Path,
    only: Option<&str>,
    last_flag: Option<&str>,
) -> Result<BTreeMap<String, Ended>> {
    fs::create_dir_all(out)?;
    let log = out.join(format!("{}.log", suite.program));
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = cluster.enter(&test_program(suite));
    command
        .args(["-test.v", "-test.timeout=50m", "--dockerrepo", "registry.knative.test/kn", "--tag", "e2e"])
        .args(suite.flags)
        .args(only.map(|only| format!("-test.run={only}")))
        .args(last_flag)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("SYSTEM_NAMESPACE", suite.system_namespace)
        .env("GATEWAY_OVERRIDE", "clipper-gateway")
        .env("GATEWAY_NAMESPACE_OVERRIDE", "knative-serving")
        .stdin(Stdio::null())
        .stderr(file.try_clone()?)
        .stdout(file);
    // How it ended says no more than the names do.
    command.status().with_context(|| format!("cannot start {}", suite.program))?;
    let found = ended(&fs::read_to_string(&log)?);
    if found.is_empty() && only.is_none() {
        bail!("{} ran no test: see {}", suite.program, log.display());
    }
    Ok(found)
}

/// How the tests of a verbose log ended; those within others do not count.
fn ended(log: &str) -> BTreeMap<String, Ended> {
    let line = |line: &str| {
        let (word, rest) = line.strip_prefix("--- ")?.split_once(": ")?;
        let ended = match word {
            "PASS" => Ended::Pass,
            "FAIL" => Ended::Fail,
            "SKIP" => Ended::Skip,
            _ => return None,
        };
        Some((rest.split_whitespace().next()?.to_owned(), ended))
    };
    log.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tests_count() {
        let log = "=== RUN   TestA\n--- PASS: TestA (0.10s)\n    --- FAIL: TestB/one (0.00s)\n--- FAIL: TestB (1.00s)\n--- SKIP: TestC (0.00s)\nPASS\n";
        let expect = [("TestA", Ended::Pass), ("TestB", Ended::Fail), ("TestC", Ended::Skip)];
        assert_eq!(ended(log), expect.map(|(name, own)| (name.to_owned(), own)).into());
    }
}
