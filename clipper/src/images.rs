//! Images of this node as verbs of the control socket: the same code serves a running process and a data directory without one.

use crate::control_socket::{Progress, Verb};
use anyhow::{Context as _, Result, bail};
use futures::future::BoxFuture;
use runtime::{Image, PullRequest, Pulled, Runtime};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// What can be asked about images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Files to import.
    Import,
    /// Nothing to say.
    List,
    /// A reference to pull.
    Pull,
    /// References or ids to remove.
    Remove,
}

impl Request {
    const ALL: [Self; 4] = [Self::Import, Self::List, Self::Pull, Self::Remove];

    /// The verb's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Import => "image-import",
            Self::List => "image-list",
            Self::Pull => "image-pull",
            Self::Remove => "image-remove",
        }
    }

    /// Does it on a runtime.
    ///
    /// # Errors
    /// What the runtime says, with the file or name it is about.
    pub async fn run(
        self,
        runtime: &dyn Runtime,
        arguments: &[String],
        progress: &Progress,
    ) -> Result<Value> {
        // Nobody may be listening.
        let tell = async |text: String| drop(progress.send(text).await);
        match self {
            Self::Import => {
                for file in arguments {
                    let imported = runtime.import_images(Path::new(file)).await;
                    for image in imported.with_context(|| format!("cannot import {file}"))? {
                        tell(format!("imported {}", image.names.join(", "))).await;
                    }
                }
                Ok(Value::Null)
            }
            Self::List => Ok(runtime.images().await?.iter().map(row).collect()),
            Self::Pull => {
                let [reference] = arguments else { bail!("one reference is pulled at a time") };
                let request = PullRequest { reference: reference.clone(), ..PullRequest::default() };
                let Pulled { image, from, .. } =
                    runtime.pull_image(request).await.with_context(|| format!("cannot pull {reference}"))?;
                tell(format!("{reference} is {} ({from:?})", image.id)).await;
                Ok(Value::Null)
            }
            Self::Remove => {
                for reference in arguments {
                    if runtime.image(reference).await?.is_none() {
                        bail!("there is no image {reference}: `clipper image ls` shows what there is");
                    }
                    let removed = runtime.remove_image(reference).await;
                    removed.with_context(|| format!("cannot remove {reference}"))?;
                    tell(format!("removed {reference}")).await;
                }
                Ok(Value::Null)
            }
        }
    }
}

fn row(image: &Image) -> Value {
    json!({"id": image.id, "names": image.names, "bytes": image.bytes, "imported": image.imported})
}

/// The verbs over a runtime.
pub fn verbs(runtime: &Arc<dyn Runtime>) -> Vec<Arc<dyn Verb>> {
    let verb = |request| Arc::new(ImageVerb { request, runtime: runtime.clone() }) as Arc<dyn Verb>;
    Request::ALL.map(verb).to_vec()
}

struct ImageVerb {
    request: Request,
    runtime: Arc<dyn Runtime>,
}

impl Verb for ImageVerb {
    fn name(&self) -> &'static str {
        self.request.name()
    }

    fn run(&self, arguments: Vec<String>, progress: Progress) -> BoxFuture<'_, Result<Value>> {
        Box::pin(async move { self.request.run(&*self.runtime, &arguments, &progress).await })
    }
}
