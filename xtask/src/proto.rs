//! `cargo xtask proto`: writes the Rust code of the gRPC interfaces that we are a client of. It is committed, so that neither a
//! build nor a user needs a generator; a test says when it is stale.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Each interface and the folder that its code goes to.
const INTERFACES: &[(&str, &str)] = &[("store/src/etcd/etcd.proto", "store/src/etcd/generated")];

/// Writes what is stale, or with `check` only says what is.
///
/// # Errors
/// An interface cannot be read; with `check`, the stale files.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (interface, folder) in INTERFACES {
        for (path, code) in generate(&root.join(interface))? {
            let path = root.join(folder).join(path);
            if fs::read_to_string(&path).is_ok_and(|found| found == code) {
                continue;
            }
            if check {
                stale.push(path.display().to_string());
                continue;
            }
            fs::create_dir_all(root.join(folder))?;
            fs::write(&path, code).with_context(|| format!("cannot write {}", path.display()))?;
            println!("proto: {}", path.display());
        }
    }
    match stale.is_empty() {
        true => Ok(()),
        false => bail!("stale, run `cargo xtask proto`: {}", stale.join(", ")),
    }
}

/// The files of one interface: names and text.
fn generate(interface: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = interface.parent().context("an interface lies in a folder")?;
    let described = protox::compile([interface], [folder])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .bytes(".")
        .out_dir(out.path())
        .compile_fds(described)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(out.path())? {
        let entry = entry?;
        files.push((PathBuf::from(entry.file_name()), fs::read_to_string(entry.path())?));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #[test]
    fn generated_code_is_fresh() {
        super::run(&crate::kit::root(), true).unwrap();
    }
}
