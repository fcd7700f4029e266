//! Images: names, digests, configuration.

mod import;
pub(crate) mod manifest;
mod pull;
mod store;
pub(crate) mod tarball;
pub(crate) mod unpack;

pub(crate) use import::import;
pub(crate) use manifest::digest as digest_of;
pub(crate) use pull::Registries;
pub(crate) use store::Store;

use crate::error::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tokio::sync::watch;

/// An image that is here, unpacked and ready to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// Normalised names with tags, `docker.io/library/busybox:1.36`.
    pub names: Vec<String>,
    /// Normalised names with digests, `docker.io/library/busybox@sha256:…`.
    pub digests: Vec<String>,
    /// What its layers take, unpacked (shared layers are counted in each image).
    pub bytes: u64,
    /// Whether an archive brought it here: it then satisfies pulls when its registry cannot be reached.
    pub imported: bool,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Chain ids of its layers, lowest first.
    pub layers: Vec<String>,
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Comes before the arguments.
    pub entrypoint: Vec<String>,
    /// The arguments, where the caller gives none.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group`, … or empty.
    pub user: String,
    /// Working directory, or empty.
    pub working_dir: String,
    /// For example `SIGQUIT`.
    pub stop_signal: Option<String>,
    /// `8080/tcp`.
    pub exposed_ports: BTreeSet<String>,
    /// Paths that the image wants outside its own layer.
    pub volumes: BTreeSet<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Credentials for a registry.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    /// None.
    #[default]
    Anonymous,
    /// User and password.
    Basic {
        /// User.
        username: String,
        /// Password.
        password: String,
    },
    /// A ready bearer token.
    Bearer {
        /// The token.
        token: String,
    },
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Auth::Anonymous => f.write_str("Anonymous"),
            Auth::Basic { username, .. } => {
                f.debug_struct("Basic").field("username", username).finish_non_exhaustive()
            }
            Auth::Bearer { .. } => f.write_str("Bearer"),
        }
    }
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes in all, 0 while unknown.
    pub bytes_total: u64,
    /// Layers that are unpacked.
    pub layers: u32,
    /// Layers in all, 0 while unknown.
    pub layers_total: u32,
}

/// An image to bring here.
#[derive(Clone, Debug, Default)]
pub struct PullRequest {
    /// A reference; need not be normalised.
    pub reference: String,
    /// Tried in order, until one is accepted; empty means anonymous.
    pub auth: Vec<Auth>,
    /// Told while it goes on.
    pub progress: Option<watch::Sender<PullProgress>>,
}

/// Where a pull found its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PulledFrom {
    /// The registry sent it, or confirmed that what was here is current.
    Registry,
    /// The registry could not be reached; an imported image of that name was here.
    Imported,
}

/// What a pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Where it came from.
    pub from: PulledFrom,
}

/// The normal form of an image's name: registry, repository, and tag or digest (`docker.io/library/busybox:latest`).
pub fn normalise(reference: &str) -> Result<String, Error> {
    let parsed: oci_client::Reference =
        reference.parse().map_err(|_| Error::InvalidReference { reference: reference.to_owned() })?;
    // Upper case is no registry's; the parser lets it pass.
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
    if !parsed.repository().chars().all(fits) {
        return Err(Error::InvalidReference { reference: reference.to_owned() });
    }
    // Where both are given the digest decides, and the tag says nothing.
    match parsed.digest() {
        Some(digest) => Ok(format!("{}/{}@{digest}", parsed.registry(), parsed.repository())),
        None => Ok(parsed.whole()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        fn check(reference: &str, expect: Option<&str>) {
            assert_eq!(normalise(reference).ok().as_deref(), expect);
        }
        let digest = format!("sha256:{}", "a".repeat(64));
        check("busybox", Some("docker.io/library/busybox:latest"));
        check("busybox:1.36", Some("docker.io/library/busybox:1.36"));
        check("user/app", Some("docker.io/user/app:latest"));
        check("registry.k8s.io/pause:3.10", Some("registry.k8s.io/pause:3.10"));
        check("localhost:5000/a", Some("localhost:5000/a:latest"));
        check(&format!("busybox@{digest}"), Some(&format!("docker.io/library/busybox@{digest}")));
        check(&format!("busybox:1@{digest}"), Some(&format!("docker.io/library/busybox@{digest}")));
        check("", None);
        check("UPPER/case", None);
        check("a b", None);
    }
}
