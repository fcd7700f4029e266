//! `cargo xtask fuzz`: every decoder of untrusted bytes under libFuzzer for a while.
//!
//! libFuzzer comes as source from the registry, and the coverage it needs from flags that the stable compiler has: neither
//! cargo-fuzz nor a nightly toolchain is needed, only a C++ compiler.

use crate::kit::{call, root};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Coverage as libFuzzer reads it. `--cfg fuzzing` is cargo-fuzz's word: crates open what is theirs alone under it.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// With a target named, build scripts and macros are compiled without the flags.
const MACHINE: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };
/// The longest input.
const INPUT_BYTES_MAX: u32 = 64 << 10;
/// Seconds that one input may take.
const INPUT_SECONDS_MAX: u32 = 20;
/// Megabytes that a target may use.
const MEMORY_MB_MAX: u32 = 2048;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// How long each target runs.
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Only targets whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Runs this input alone (with `--only TARGET`).
    #[arg(long)]
    input: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 30, only: None, input: None }
    }
}

/// Builds the targets and runs them, as many at once as there are processors.
///
/// # Errors
/// Names the targets that failed and where the inputs are.
pub fn run(options: &Options) -> Result<()> {
    let program = build()?;
    let listed = Command::new(&program).env("CLIPPER_FUZZ_TARGET", "list").output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let wanted = |name: &&str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let targets: Vec<&str> = listed.lines().filter(wanted).collect();
    if targets.is_empty() {
        bail!("no target is called like that; there are: {}", listed.replace('\n', " "));
    }
    if let (Some(input), [target]) = (&options.input, targets.as_slice()) {
        let mut command = Command::new(&program);
        command.env("CLIPPER_FUZZ_TARGET", target).arg(input);
        return call(command);
    }
    let (queue, failed) = (Mutex::new(targets.into_iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().map(|mut queue| queue.next());
                    let Ok(Some(target)) = next else { return };
                    match fuzz(&program, target, options.seconds) {
                        Ok(()) => println!("fuzz {target}: ok"),
                        Err(error) => {
                            println!("fuzz {target}: FAILED\n  {error:#}");
                            failed.lock().map(|mut failed| failed.push(target)).unwrap_or_default();
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("failed: {}", failed.join(", ")),
    }
}

/// Where corpora, findings and the program are.
fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| root().join("target"), PathBuf::from).join("fuzz")
}

fn build() -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked", "--target", MACHINE, "--target-dir"])
        .arg(folder().join("build"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .current_dir(root().join("fuzz"));
    call(command)?;
    Ok(folder().join("build").join(MACHINE).join("release/clipper-fuzz"))
}

fn fuzz(program: &Path, target: &str, seconds: u32) -> Result<()> {
    let corpus = folder().join("corpus").join(target);
    let found = folder().join("found").join(target);
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = found.join("log");
    let output = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = Command::new(program)
        .env("CLIPPER_FUZZ_TARGET", target)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .arg(&corpus)
        .arg(root().join("fuzz/seeds").join(target))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .status()?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let told =
        |line: &&str| line.contains("panicked") || line.contains("ERROR") || line.contains("Test unit");
    let told: Vec<&str> = text.lines().filter(told).collect();
    bail!("{status}: {}\n  see {}", told.join("\n  "), log.display())
}
