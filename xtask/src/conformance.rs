//! `cargo xtask conformance`: the official suite against a cluster that lives in a network namespace of its own.

use crate::cluster::{Cluster, Part, build};
use crate::kit::{call, kit, root, shared};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// What to run.
#[derive(Args, Clone, Default)]
pub struct Options {
    /// Lists of the kit by name (`sig-node`), or files; `ratchet` is conformance/green.txt.
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
}

impl Options {
    /// What CI runs: every name of the ratchet must pass.
    pub fn ratchet() -> Self {
        Self { lists: vec!["ratchet".into()], procs: 4, out: "conformance-out".into(), ..Self::default() }
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
    let list = options.out.join("names.txt");
    fs::write(&list, names.iter().map(|name| format!("{name}\n")).collect::<String>())?;
    let binary = build()?;
    let cluster = Cluster::start(&format!("conf{}", std::process::id()), &binary, Part::Up)?;
    let mut tarballs: Vec<_> =
        fs::read_dir(kit().join("images"))?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    tarballs.sort();
    cluster.import(&tarballs)?;
    let mut command = cluster.enter(&shared().join("conformance/run"));
    command
        .arg(cluster.kubeconfig())
        .arg(&list)
        .args(["--procs", &options.procs.to_string(), "--out"])
        .arg(&options.out)
        .env("KIT", kit());
    if let Some(only) = &options.only {
        command.args(["--only", only]);
    }
    let passed = call(command);
    if options.keep {
        cluster.keep();
    }
    passed
}
