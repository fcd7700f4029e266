//! Structure that a compiler does not check.

use anyhow::{Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate of the workspace may depend on. Everything else is an arrow that points up or sideways.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("shim", &[]),
    ("runtime", &["shim"]),
    ("resources", &["api"]),
    ("apiserver", &["api", "store"]),
    ("client", &["api"]),
    ("scheduler", &["api", "client"]),
    ("controllers", &["api", "client"]),
    ("net", &["api", "client"]),
    ("duck", &["api", "client"]),
    ("serving", &["api", "client", "duck"]),
    // Of the store: the seam to a disk, so that the log of events meets the same faults in tests.
    ("eventing", &["api", "client", "duck", "store"]),
    ("node", &["api", "client", "runtime"]),
    ("testkit", &["api", "apiserver", "client", "resources", "store"]),
    (
        "clipper",
        &[
            "api",
            "apiserver",
            "client",
            "controllers",
            "eventing",
            "net",
            "node",
            "resources",
            "runtime",
            "scheduler",
            "serving",
            "store",
        ],
    ),
    ("xtask", &[]),
];

/// Lines of a source file without its tests, beyond which a second idea is likely in it.
const FILE_LINES_MAX: usize = 600;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<PathBuf>,
    kind: Option<String>,
}

/// Runs every check and reports all that is wrong.
///
/// # Errors
/// Lists what is wrong, a line each.
pub fn run(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    arrows(root, &mut wrong)?;
    let files = sources(root)?;
    sizes(root, &files, &mut wrong)?;
    words(&files, &mut wrong);
    documents(root, &mut wrong)?;
    if wrong.is_empty() {
        println!("tidy: {} source files are in order", files.len());
        return Ok(());
    }
    bail!("tidy:\n  {}", wrong.join("\n  "))
}

fn arrows(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let output = std::process::Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    for package in metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id))
    {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            wrong.push(format!("crate {} is not in the table of arrows (xtask/src/tidy.rs)", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let own = dependency.path.is_some() && dependency.kind.as_deref() != Some("dev");
            if own && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} must not depend on {}", package.name, dependency.name));
            }
        }
    }
    Ok(())
}

/// Every Rust source of the workspace (relative path and text), tests and generated files apart.
fn sources(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let output = std::process::Command::new("git").args(["ls-files", "*.rs"]).current_dir(root).output()?;
    let mut files = Vec::new();
    for path in String::from_utf8(output.stdout)?.lines() {
        if let Ok(text) = fs::read_to_string(root.join(path)) {
            files.push((PathBuf::from(path), text));
        }
    }
    if files.is_empty() {
        bail!("git lists no sources: run it in a checkout");
    }
    Ok(files)
}

/// Lines before the tests at the end of a file.
fn code_lines(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

fn is_test(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.ends_with("tests.rs")
        || text.contains("/tests/")
        || text.contains("/generated/")
        || text.starts_with("fuzz/")
}

fn sizes(root: &Path, files: &[(PathBuf, String)], wrong: &mut Vec<String>) -> Result<()> {
    let list = fs::read_to_string(root.join("xtask/tidy-sizes.txt")).unwrap_or_default();
    let excepted: BTreeMap<&str, usize> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(path, lines)| Some((path, lines.trim().parse().ok()?)))
        .collect();
    for (path, text) in files.iter().filter(|(path, _)| !is_test(path)) {
        let lines = code_lines(text);
        let name = path.to_string_lossy();
        let lines_max = excepted.get(&*name).copied().unwrap_or(FILE_LINES_MAX);
        if lines > lines_max {
            wrong.push(format!(
                "{name} has {lines} lines, allowed are {lines_max}: is there a second idea in it?"
            ));
        }
    }
    for path in excepted.keys() {
        if !root.join(path).exists() {
            wrong.push(format!("xtask/tidy-sizes.txt names {path}, which does not exist"));
        }
    }
    Ok(())
}

/// Words that a layer must not know.
fn words(files: &[(PathBuf, String)], wrong: &mut Vec<String>) {
    let rules: &[(&str, &[&str], &str)] = &[
        ("store/src/", &["k8s_openapi", "api::"], "the store knows no Kubernetes word"),
        ("runtime/src/", &["k8s_openapi", "api::"], "the runtime knows no Kubernetes word"),
        ("shim/src/", &["k8s_openapi", "api::"], "the shim knows no Kubernetes word"),
        ("apiserver/src/verbs/", &["k8s_openapi::api::"], "verbs never name a kind"),
        ("apiserver/src/watch_cache", &["k8s_openapi::api::"], "the watch cache never names a kind"),
    ];
    for (path, text) in files.iter().filter(|(path, _)| !is_test(path)) {
        let name = path.to_string_lossy();
        let code: String = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).fold(
            String::new(),
            |mut code, line| {
                if !line.trim_start().starts_with("//") {
                    code.push_str(line);
                    code.push('\n');
                }
                code
            },
        );
        for (prefix, banned, why) in rules.iter().filter(|(prefix, ..)| name.starts_with(prefix)) {
            for word in banned.iter().filter(|word| code.contains(**word)) {
                wrong.push(format!("{name} says {word}: {why} ({prefix})"));
            }
        }
        let may_read_env =
            name.starts_with("clipper/") || name.starts_with("xtask/") || name.ends_with("build.rs");
        let is_program = name.starts_with("shim/") || name.contains("/examples/");
        if !may_read_env && !is_program && (code.contains("std::env::var") || code.contains("env::args")) {
            wrong.push(format!("{name} reads the environment or arguments: only clipper does"));
        }
    }
}

/// Every path in back quotes that ARCHITECTURE.md and the ADRs name must exist.
fn documents(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let mut documents = vec![root.join("ARCHITECTURE.md"), root.join("README.md")];
    if let Ok(entries) = fs::read_dir(root.join("docs/adr")) {
        documents.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    let crates: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for document in documents {
        let text = fs::read_to_string(&document)?;
        for quoted in text.split('`').skip(1).step_by(2) {
            let first = quoted.split('/').next().unwrap_or("");
            let is_path = quoted.contains('/')
                && !quoted.contains([' ', '<', '*', '{', ':', '$'])
                && (crates.contains(&first)
                    || ["docs", "conformance", "fuzz", ".ci", "charts"].contains(&first));
            if is_path && !root.join(quoted).exists() {
                let name = document.strip_prefix(root).unwrap_or(&document).display();
                wrong.push(format!("{name} names {quoted}, which does not exist"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        run(&crate::kit::root()).unwrap();
    }

    #[test]
    fn arrows_never_point_at_the_crate_itself_or_form_a_cycle() {
        // Rows are ordered so that each names only rows above it; testkit and clipper come last.
        for (index, (name, allowed)) in ARROWS.iter().enumerate() {
            for target in *allowed {
                let at = ARROWS.iter().position(|(own, _)| own == target).unwrap();
                assert!(at < index, "{name} points at {target}");
            }
        }
    }
}
