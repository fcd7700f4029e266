//! `cargo xtask bench`: the figures that are promised, measured on what is shipped.
//!
//! The scripts are the judges' (`bench` beside the checkout), so that another system is measured in the same way.

mod knative;
mod measure;
mod rows;
mod subject;

use crate::cluster::{Part, build};
use crate::kit::{call, output, root, target};
use anyhow::{Context as _, Result};
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Upstream too, in the same run (its programs must be built: `conformance/build upstream`).
    #[arg(long)]
    peer: bool,
    /// This binary instead of a release build.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// What else the machine is doing: it is written beside the figures.
    #[arg(long, default_value = "nothing else ran")]
    beside: String,
    /// Knative's figures only, which are printed and not written down.
    #[arg(long)]
    knative: bool,
    /// Print the table only; docs/benchmarks.md stays as it is.
    #[arg(long)]
    dry_run: bool,
}

/// Our own scripts.
fn scripts() -> PathBuf {
    root().join("xtask/src/bench")
}

/// Measures, prints the table and writes it down.
///
/// # Errors
/// Something could not be measured: says what.
pub fn run(options: &Options) -> Result<()> {
    crate::kit::ensure()?;
    let python = python()?;
    wrk()?;
    let binary = options.binary.clone().map_or_else(build, Ok)?;
    crate::knative::ensure()?;
    if options.knative {
        println!("{}", rows::table(&measure::knative(&binary)?, None));
        return Ok(());
    }
    let load = load();
    let own = measure::clipper(&binary, &python).context("measuring Clipper")?;
    let peer = options.peer.then(|| measure::peer(&python).context("measuring upstream")).transpose()?;
    let table = rows::table(&own, peer.as_ref());
    println!("{table}");
    if options.dry_run {
        return Ok(());
    }
    let path = root().join("docs/benchmarks.md");
    let text = format!("{}\n{table}", heading(options, &load)?);
    let document = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, rows::into_document(&document, &text))?;
    println!("written to docs/benchmarks.md");
    Ok(())
}

/// What the figures are worth: when, where, and beside what.
fn heading(options: &Options, load: &str) -> Result<String> {
    let date = output(Command::new("date").arg("+%F"), "")?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel: Vec<_> = kernel.trim().splitn(3, '.').take(2).collect();
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let gib = rows::after(&memory, "MemTotal:").unwrap_or_default() / f64::from(1 << 20);
    let cores = std::thread::available_parallelism()?;
    let peer = if options.peer { " --peer" } else { "" };
    let mut text = String::new();
    writeln!(
        text,
        "`cargo xtask bench{peer}`, {}, release build. Virtual machine with {cores} cores,",
        date.trim()
    )?;
    writeln!(text, "{gib:.0} GiB and Linux {}; load and server share the cores.", kernel.join("."))?;
    writeln!(text, "Beside it: {} (load average at the beginning {load}).", options.beside)?;
    Ok(text)
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// A Python that has what the scripts need.
fn python() -> Result<PathBuf> {
    let folder = target().join("bench-venv");
    let python = folder.join("bin/python");
    if !python.exists() {
        call(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        call(Command::new(&python).args(["-m", "pip", "install", "--quiet", "aiohttp", "pyyaml"]))?;
    }
    Ok(python)
}

fn wrk() -> Result<()> {
    if Command::new("wrk").arg("-v").output().is_err() {
        call(Command::new("apt-get").args(["install", "-y", "-qq", "wrk"]))?;
    }
    Ok(())
}
