//! `cargo xtask conformance`: the official suite against a cluster that lives in a network namespace of its own.

use crate::cluster::{Cluster, Part, build};
use crate::kit::{kit, root, shared};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many names of the ratchet run between two looks at the clock.
const BATCH_LEN: usize = 64;
/// More failures than this have one cause, which a second try does not cure.
pub const AGAIN_MAX: usize = 10;

/// What to run.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Lists of the kit by name (`sig-node`), or files; `ratchet` is conformance/green.txt; `knative` are Knative's own suites.
    #[arg(default_values_t = vec!["ratchet".to_owned()])]
    lists: Vec<String>,
    /// Only names that match.
    #[arg(long)]
    only: Option<String>,
    /// Tests at once.
    #[arg(long, default_value_t = 4)]
    procs: u32,
    /// Leave the cluster running afterwards and print how to reach it.
    #[arg(long)]
    keep: bool,
    /// Where the results go.
    #[arg(long, default_value = "conformance-out")]
    out: PathBuf,
    /// No further names are begun after this; always some.
    #[arg(skip)]
    until: Option<Instant>,
}

impl Options {
    /// What CI runs: the names of the ratchet, as many as can be begun until then. Each of them must pass.
    pub fn ratchet(until: Instant) -> Self {
        let lists = vec!["ratchet".into()];
        Self { lists, procs: 4, out: "conformance-out".into(), until: Some(until), ..Self::default() }
    }
}

/// Whether there is no name yet that must stay green.
///
/// # Errors
/// The file cannot be read.
pub fn ratchet_is_empty() -> Result<bool> {
    let path = root().join("conformance/green.txt");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().is_empty())
}

/// Runs the lists and prints what passed.
///
/// # Errors
/// A name of the ratchet failed, or the suite could not run.
pub fn run(options: &Options) -> Result<()> {
    if options.lists.iter().any(|list| list == "knative") {
        return crate::knative::run(&options.out, options.only.as_deref(), options.keep);
    }
    crate::kit::ensure()?;
    let mut names = BTreeSet::new();
    for list in &options.lists {
        let path = match list.as_str() {
            "ratchet" => root().join("conformance/green.txt"),
            name if name.ends_with(".txt") => PathBuf::from(name),
            name => shared().join(format!("conformance/lists/{name}.txt")),
        };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        names.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if names.is_empty() {
        bail!("no test names: the lists are empty");
    }
    fs::create_dir_all(&options.out)?;
    let binary = build()?;
    let cluster = Cluster::start(&format!("conf{}", std::process::id()), &binary, Part::Up)?;
    let mut tarballs: Vec<_> =
        fs::read_dir(kit().join("images"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tarballs.sort();
    cluster.import(&tarballs)?;
    let names: Vec<String> = names.into_iter().collect();
    let passed = match options.until {
        None => batch(&cluster, &names, options),
        Some(until) => sample(&cluster, names, options, until),
    };
    if options.keep {
        cluster.keep();
    }
    passed
}

/// Runs names, and those that fail once more.
fn batch(cluster: &Cluster, names: &[String], options: &Options) -> Result<()> {
    let list = options.out.join("names.txt");
    fs::write(&list, names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    let passed = suite(cluster, &list, &options.out, options.procs, options.only.as_deref());
    passed.or_else(|_| again(cluster, options))
}

/// Runs as many names as fit the time, other ones first for another commit, and says which were left out.
fn sample(cluster: &Cluster, mut names: Vec<String>, options: &Options, until: Instant) -> Result<()> {
    let begin = start(&commit(), names.len());
    names.rotate_left(begin);
    let mut longest = Duration::ZERO;
    for (index, part) in names.chunks(BATCH_LEN).enumerate() {
        let began = Instant::now();
        if index > 0 && began + longest > until {
            let left = &names[index * BATCH_LEN..];
            println!("no time for {} of the {} names of the ratchet:", left.len(), names.len());
            left.iter().for_each(|name| println!("  not run: {name}"));
            return Ok(());
        }
        batch(cluster, part, options)?;
        longest = longest.max(began.elapsed());
    }
    println!("all {} names of the ratchet ran", names.len());
    Ok(())
}

/// The checkout's commit; of no checkout, nothing: the sample then begins with the first name.
fn commit() -> String {
    crate::kit::output(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()), "")
        .unwrap_or_default()
}

/// Where among `len` names a commit's sample begins.
fn start(commit: &str, len: usize) -> usize {
    let sum = commit.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    sum % len.max(1)
}

/// Runs the names of a list in the cluster.
fn suite(cluster: &Cluster, list: &Path, out: &Path, procs: u32, only: Option<&str>) -> Result<()> {
    let mut command = cluster.enter(&shared().join("conformance/run"));
    command.arg(cluster.kubeconfig()).arg(list).args(["--procs", &procs.to_string(), "--out"]).arg(out);
    if let Some(only) = only {
        command.args(["--only", only]);
    }
    call_quietly(command.env("KIT", kit()))
}

fn call_quietly(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot start the official suite")?;
    if !status.success() {
        bail!("names of the official suite failed");
    }
    Ok(())
}

/// Many tests at once on a small machine run into their own time limits now and then: what failed is tried once more, alone, and
/// told. What is wrong fails again.
fn again(cluster: &Cluster, options: &Options) -> Result<()> {
    let text = fs::read_to_string(options.out.join("failed.txt"))?;
    let failed: Vec<&str> = text.lines().filter(|line| !line.starts_with(' ')).collect();
    if failed.is_empty() || failed.len() > AGAIN_MAX {
        bail!("{} names of the official suite failed", failed.len());
    }
    println!("{} failed and are tried once more, one by one", failed.len());
    let list = options.out.join("again.txt");
    fs::write(&list, failed.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    suite(cluster, &list, &options.out.join("again"), 1, None)?;
    failed.iter().for_each(|name| println!("passed only alone: {name}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_begin_within_the_names_and_elsewhere_for_another_commit() {
        let check = |commit: &str, len: usize, expect: usize| assert_eq!(start(commit, len), expect);
        check("", 256, 0);
        check("a", 256, 97);
        check("b", 256, 98);
        check("a", 10, 7);
        check("a", 0, 0);
    }
}
