//! Builds the shim as a small static program of its own, for `include_bytes!`.
//!
//! A nested cargo with its own target directory: the profile and flags differ from ours. It needs nothing that the outer build has not
//! fetched already (the library half of `shim` is our dependency), so it also works offline.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../shim/Cargo.toml");
    for watched in ["../shim/src", "../shim/Cargo.toml", "build.rs"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    // Not every system has the C library's static archive; then the shim is an ordinary program, larger in memory but the same.
    let built =
        build(&manifest, &out, "-C target-feature=+crt-static -C relocation-model=static").or_else(|first| {
            println!(
                "cargo:warning=the shim is linked dynamically, a static one failed: {}",
                first.lines().last().unwrap_or_default()
            );
            build(&manifest, &out, "")
        });
    match built {
        Ok(program) => {
            std::fs::copy(program, out.join("shim")).expect("copying the shim");
        }
        Err(output) => panic!("building the shim failed:\n{output}"),
    }
}

fn build(manifest: &Path, out: &Path, flags: &str) -> Result<PathBuf, String> {
    let target = std::env::var("TARGET").expect("cargo sets it");
    let mut cargo = Command::new(std::env::var_os("CARGO").expect("cargo sets it"));
    // Without a target, flags would also apply to procedural macros, which cannot be static.
    cargo
        .args(["build", "--release", "--bin", "shim", "--target", &target])
        .arg("--manifest-path")
        .arg(manifest);
    cargo.arg("--target-dir").arg(out.join("shim-target")).args(["--locked", "--offline"]);
    let profile = [
        ("OPT_LEVEL", "s"),
        ("LTO", "fat"),
        ("CODEGEN_UNITS", "1"),
        ("PANIC", "abort"),
        ("STRIP", "true"),
        ("DEBUG", "false"),
    ];
    for (key, value) in profile {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        // What the outer cargo says about this package does not hold for that one.
        if name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name == "CARGO_ENCODED_RUSTFLAGS"
            || name.starts_with("RUSTC")
        {
            cargo.env_remove(&key);
        }
    }
    cargo.env("RUSTFLAGS", flags).env_remove("CARGO_BUILD_TARGET_DIR").env_remove("CARGO_TARGET_DIR");
    let output = cargo.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(out.join("shim-target").join(target).join("release/shim")),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
