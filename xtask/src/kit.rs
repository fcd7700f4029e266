//! Where things are, and the programs that the tests call.

use anyhow::{Context as _, Result, bail};
use std::borrow::BorrowMut;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The judges' scripts beside the checkout.
pub fn shared() -> PathBuf {
    root().join("../shared")
}

/// Where the kit's programs and images are built.
pub fn kit() -> PathBuf {
    std::env::var_os("KIT").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/clipper-kit"),
        PathBuf::from,
    )
}

/// A program of the kit.
pub fn program(name: &str) -> PathBuf {
    kit().join("bin").join(name)
}

/// Builds what is missing of the kit.
///
/// # Errors
/// Names Go where that is what is missing.
pub fn ensure() -> Result<()> {
    let scripts = shared().join("conformance");
    if !scripts.exists() {
        bail!("the conformance kit's scripts are not beside the checkout ({})", scripts.display());
    }
    let have = |name: &str| kit().join("bin").join(name).exists();
    let images = kit().join("images/agnhost.tar").exists();
    if have("kubectl") && have("helm") && have("e2e.test") && have("etcd") && images {
        return Ok(());
    }
    if Command::new("go").arg("version").output().is_err() {
        bail!(
            "Go is missing: the conformance kit (real kubectl, helm and the official suite) is built from Go modules"
        );
    }
    call(Command::new(scripts.join("build")))?;
    call(Command::new(scripts.join("images")))
}

/// Builds what is missing of upstream's own components.
///
/// # Errors
/// They do not build.
pub fn ensure_upstream() -> Result<()> {
    let components = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];
    if components.iter().all(|name| program(name).exists()) {
        return Ok(());
    }
    call(Command::new(shared().join("conformance/build")).arg("upstream"))
}

/// Runs a command to its end.
///
/// # Errors
/// It could not be started, or ended with another status than 0.
pub fn call(mut command: impl BorrowMut<Command>) -> Result<()> {
    let command = command.borrow_mut();
    let line = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{line} ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end and returns what it prints.
///
/// # Errors
/// It could not be started, or ended with another status than 0: says what it printed.
pub fn output(mut command: impl BorrowMut<Command>, input: &str) -> Result<String> {
    let command = command.borrow_mut();
    let line = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing may be gone already.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if !output.status.success() {
        bail!("{line} ended with {}: {}{}", output.status, text(output.stdout), text(output.stderr));
    }
    Ok(text(output.stdout))
}
