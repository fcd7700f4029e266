//! `clipper why KIND/NAME`: what keeps an object from being what its spec asks.

use crate::why::{self, Subject, read};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Why {
    /// `pod/NAME`, `deployment/NAME`, `service/NAME`, `ksvc/NAME` or `trigger/NAME`.
    #[arg(value_name = "KIND/NAME", value_parser = Subject::parse)]
    subject: Subject,
    /// Where the object is.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Everything the process keeps lies below it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/clipper")]
    data_dir: PathBuf,
}

/// Prints the chain from the object to what holds it up.
pub(super) fn run(own: &Why) -> Result<()> {
    let client = read::client(&own.data_dir.join("kubeconfig"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let objects = runtime.block_on(read::objects(&client, &own.namespace))?;
    let Some(findings) = why::explain(&own.subject, &objects) else {
        bail!("there is no {} in namespace {}", own.subject, own.namespace);
    };
    for finding in findings {
        println!("{finding}");
    }
    Ok(())
}
