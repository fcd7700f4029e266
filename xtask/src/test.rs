//! `cargo xtask test`: everything that CI checks, in its order.

use crate::kit::{call, root};
use anyhow::Result;
use clap::Args;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long all may take until no further name of the ratchet is begun: CI ends after 90 minutes.
const TIME_MAX: Duration = Duration::from_mins(72);

/// What to leave out while working.
#[derive(Args)]
pub struct Options {
    /// Stop after the unit and trait suites: no cluster is started.
    #[arg(long)]
    no_cluster: bool,
}

/// Runs the rings one after another and stops at the first that fails.
///
/// # Errors
/// Which ring failed.
pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let cargo = |words: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(words).current_dir(root());
        command
    };
    ring("format", || call(cargo(&["fmt", "--all", "--check"])))?;
    ring("lint", || {
        call(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    ring("tidy", || crate::tidy::run(&root()))?;
    ring("licences and bans", || deny(&cargo))?;
    ring("units and suites", || call(cargo(&["test", "--workspace", "--locked"])))?;
    ring("crash", || crate::crash::run(&crate::crash::Options::default()))?;
    if options.no_cluster {
        return Ok(());
    }
    ring("kit", crate::kit::ensure)?;
    ring("store on etcd", || {
        let mut command = cargo(&["test", "--package", "store", "--test", "etcd", "--locked"]);
        command.env("CLIPPER_TEST_ETCD", crate::kit::program("etcd"));
        call(command)
    })?;
    ring("scenarios", || crate::scenario::run(&crate::scenario::Options::default()))?;
    if !crate::knative::ratchet_is_empty()? {
        ring("Knative", crate::knative::ratchet)?;
    }
    ring("swap", || crate::swap::run(&crate::swap::Options::default()))?;
    if crate::conformance::ratchet_is_empty()? {
        println!(
            "== ratchet: conformance/green.txt is empty: no name of the official suite has passed twice yet"
        );
        return Ok(());
    }
    ring("ratchet", || crate::conformance::run(&crate::conformance::Options::ratchet(began + TIME_MAX)))
}

fn deny(cargo: &dyn Fn(&[&str]) -> Command) -> Result<()> {
    if Command::new("cargo-deny").arg("--version").output().is_err() {
        call(cargo(&["install", "--locked", "cargo-deny"]))?;
    }
    call(cargo(&["deny", "check", "bans", "licenses", "sources"]))
}

fn ring(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let began = Instant::now();
    run()?;
    println!("== {name}: passed in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}
