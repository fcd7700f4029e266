//! Tags become digests, so that a revision runs the same image for ever. Upstream: `pkg/reconciler/revision/{background,resolve}.go`.

use crate::kinds::text;
use crate::settings::Settings;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// Finds out which image a tag means. The process that has an image store or reaches a registry fills it in.
pub trait Resolve: Send + Sync {
    /// The image with a digest in place of its tag (`REPOSITORY@sha256:…`).
    fn resolve<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Result<String, ResolveError>>;
}

/// Why a tag has no digest.
#[derive(Debug, thiserror::Error)]
#[error("Unable to fetch image {image:?}: {reason}")]
pub struct ResolveError {
    /// The image.
    pub image: String,
    /// What the registry or store says.
    pub reason: String,
}

/// The registry of an image, as far as it names one.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "index.docker.io",
    }
}

/// Fills in the digests of all containers that have none yet. Where nothing resolves, tags stay tags, as for registries that
/// the settings except.
///
/// # Errors
/// An image cannot be found.
pub(crate) async fn resolve(
    spec: &Value,
    status: &mut Value,
    settings: &Settings,
    resolver: Option<&dyn Resolve>,
) -> Result<(), ResolveError> {
    for (field, to) in [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")] {
        let containers = spec[field].as_array().map_or(&[][..], Vec::as_slice);
        if containers.is_empty() || status[to].as_array().map_or(0, Vec::len) == containers.len() {
            continue;
        }
        let mut found = Vec::with_capacity(containers.len());
        for container in containers {
            let image = text(container, "/image");
            let is_excepted = settings.registries_without_digests.iter().any(|own| own == registry(image));
            let mut own = json!({"name": text(container, "/name")});
            match resolver {
                _ if image.contains('@') => own["imageDigest"] = image.into(),
                Some(resolver) if !is_excepted => own["imageDigest"] = resolver.resolve(image).await?.into(),
                _ => {}
            }
            found.push(own);
        }
        status[to] = found.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::registry;

    #[test]
    fn the_registry_is_the_first_part_if_it_is_a_host() {
        let check = |image: &str, expect: &str| assert_eq!(registry(image), expect);
        check("a", "index.docker.io");
        check("a/b", "index.docker.io");
        check("dev.local/a", "dev.local");
        check("localhost/a", "localhost");
        check("h:5000/a/b:c", "h:5000");
    }
}
