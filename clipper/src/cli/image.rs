//! `clipper image`: images of this node, whether its process runs or not.

use crate::control_socket;
use crate::images::Request;
use crate::instance::Instance;
use crate::local_node::{self, Place};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Words of progress that wait to be printed.
const PROGRESS_MAX: usize = 64;

#[derive(Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    command: Command,
    /// Everything the process keeps lies below it.
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/clipper")]
    data_dir: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Imports tarballs (OCI layout or docker-archive).
    Import {
        /// Tarballs, or directories with an OCI layout.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Lists images.
    Ls,
    /// Brings an image here from its registry.
    Pull {
        /// Such as `docker.io/library/busybox:latest`.
        reference: String,
    },
    /// Removes images, or names of them.
    Rm {
        /// References or ids.
        #[arg(required = true)]
        references: Vec<String>,
    },
}

/// Runs the command and prints what it says.
pub(super) fn run(image: &Image) -> Result<()> {
    let (request, arguments) = match &image.command {
        Command::Import { files } => (Request::Import, absolute(files)?),
        Command::Ls => (Request::List, Vec::new()),
        Command::Pull { reference } => (Request::Pull, vec![reference.clone()]),
        Command::Rm { references } => (Request::Remove, references.clone()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(ask(&image.data_dir, request, arguments))?;
    print(&result);
    Ok(())
}

/// The process that is asked has another working directory.
fn absolute(files: &[PathBuf]) -> Result<Vec<String>> {
    let one = |file: &PathBuf| {
        let path = file.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
        path.into_os_string()
            .into_string()
            .map_err(|path| anyhow::anyhow!("{} is not valid UTF-8", path.display()))
    };
    files.iter().map(one).collect()
}

async fn ask(data_dir: &Path, request: Request, arguments: Vec<String>) -> Result<Value> {
    let asked = control_socket::call(data_dir, request.name(), arguments.clone(), |text| println!("{text}"));
    if let Some(result) = asked.await? {
        return Ok(result);
    }
    let _instance = Instance::claim(data_dir)?;
    let engine = local_node::open_runtime(&Place::of(data_dir)?).await?;
    let (progress, mut told) = tokio::sync::mpsc::channel(PROGRESS_MAX);
    let printing = tokio::spawn(async move {
        while let Some(text) = told.recv().await {
            println!("{text}");
        }
    });
    let result = request.run(&engine, &arguments, &progress).await;
    drop(progress);
    printing.await?;
    result
}

fn print(result: &Value) {
    let Some(images) = result.as_array() else { return };
    println!("{:<72} {:>12} ID", "NAME", "SIZE");
    for image in images {
        let id = image["id"].as_str().unwrap_or_default().trim_start_matches("sha256:");
        let megabytes = image["bytes"].as_f64().unwrap_or_default() / 1e6;
        for name in image["names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("{name:<72} {:>12} {:.12}", format!("{megabytes:.1}MB"), id);
        }
    }
}
