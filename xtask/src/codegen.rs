//! `cargo xtask codegen`: writes the schema table and the test vectors of `api` from upstream's Go types, and the
//! structure of Knative's kinds from its definitions.

use crate::kit;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// Runs the Go program in `xtask/codegen`.
///
/// # Errors
/// Names Go where that is what is missing.
pub fn run(root: &Path) -> Result<()> {
    if Command::new("go").arg("version").output().is_err() {
        bail!("Go is missing: the schema table is read off upstream's Go types (see xtask/codegen/go.mod)");
    }
    let mut program = Command::new("go");
    program.args(["run", "."]).current_dir(root.join("xtask/codegen"));
    program.arg(root.join("api/src/schema/table.gz")).arg(root.join("api/tests/vectors"));
    program.arg(root.join("resources/src/knative"));
    kit::call(program)
}
