//! What images say about themselves: indexes, manifests, configurations. Own types: of each only what running needs, and nothing refused for
//! a field that we do not know.

use super::ImageConfig;
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};

/// No index, manifest or configuration is larger.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// More layers than this overlayfs cannot stack with the names that we give them.
pub(super) const LAYERS_MAX: usize = 128;

/// What runs here.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Go writes `null` for what is empty.
fn lax<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default, deserialize_with = "lax")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Descriptor {
    pub(super) fn is_index(&self) -> bool {
        self.media_type.contains("image.index") || self.media_type.contains("manifest.list")
    }
}

/// An index or a manifest: which of the two it is shows in what it has.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    #[serde(default, deserialize_with = "lax")]
    pub(super) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default, deserialize_with = "lax")]
    pub(super) layers: Vec<Descriptor>,
}

impl Document {
    /// The manifest of an index for this machine.
    pub(crate) fn for_here(&self, image: &str) -> Result<&Descriptor> {
        let fits = |descriptor: &&Descriptor| {
            descriptor
                .platform
                .as_ref()
                .is_none_or(|p| (p.os.as_str(), p.architecture.as_str()) == ("linux", ARCHITECTURE))
        };
        self.manifests.iter().find(fits).ok_or_else(|| Error::BadImage {
            image: image.to_owned(),
            reason: format!("no match for platform in manifest: linux/{ARCHITECTURE}"),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
struct ConfigFile {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default, deserialize_with = "lax")]
    config: Config,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "lax")]
    diff_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default, deserialize_with = "lax")]
    user: String,
    #[serde(default, deserialize_with = "lax")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "lax")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "lax")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "lax")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "lax")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "lax")]
    working_dir: String,
    #[serde(default, deserialize_with = "lax")]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    stop_signal: Option<String>,
}

/// A configuration, read: how the image wants to be run, and the digests of its unpacked layers.
pub(crate) fn configuration(image: &str, text: &[u8]) -> Result<(ImageConfig, Vec<String>)> {
    let bad = |reason: String| Error::BadImage { image: image.to_owned(), reason };
    let file: ConfigFile = serde_json::from_slice(text)
        .map_err(|error| bad(format!("its configuration is damaged: {error}")))?;
    let platform = (file.os.as_str(), file.architecture.as_str());
    if !matches!(platform, ("" | "linux", arch) if arch.is_empty() || arch == ARCHITECTURE) {
        return Err(bad(format!(
            "it is for {}/{}, this machine is linux/{ARCHITECTURE}",
            platform.0, platform.1
        )));
    }
    let diff_ids = file.rootfs.diff_ids;
    if diff_ids.len() > LAYERS_MAX {
        return Err(bad(format!("it has {} layers, at most {LAYERS_MAX} can be used", diff_ids.len())));
    }
    if let Some(odd) = diff_ids.iter().find(|id| hex(id).is_none()) {
        return Err(bad(format!("{odd:?} is not a digest")));
    }
    let names = |map: BTreeMap<String, serde_json::Value>| map.into_keys().collect::<BTreeSet<_>>();
    let config = file.config;
    let config = ImageConfig {
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        env: config.env,
        user: config.user,
        working_dir: config.working_dir,
        stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
        exposed_ports: names(config.exposed_ports),
        volumes: names(config.volumes),
        labels: config.labels,
    };
    Ok((config, diff_ids))
}

/// The digits of a `sha256:…` digest: checked, because they become file names.
pub(super) fn hex(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(hex)
}

/// `sha256:…` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    written(&sha2::Sha256::digest(bytes))
}

/// A hash in the form of a digest.
pub(super) fn written(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The chain ids of layers: each names a layer on top of all below. Upstream: image-spec, config.md.
pub(super) fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read() {
        let id = format!("sha256:{}", "a".repeat(64));
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{id}"]}},"config":
            {{"User":"1000","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=b"],"Entrypoint":["/e"],"Cmd":null,"Volumes":null,"WorkingDir":"/w"}}}}"#
        );
        let (config, ids) = configuration("x", text.as_bytes()).unwrap();
        assert_eq!((config.user.as_str(), config.working_dir.as_str(), ids), ("1000", "/w", vec![id]));
        assert_eq!(
            (config.entrypoint, config.cmd, config.env),
            (vec!["/e".into()], vec![], vec!["A=b".to_owned()])
        );
        assert!(config.exposed_ports.contains("80/tcp"));
    }

    #[test]
    fn what_cannot_run_here_is_refused() {
        fn check(text: &str, expect: &str) {
            let error = configuration("x", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
        check("{", "damaged");
        check(r#"{"architecture":"s390x","os":"linux"}"#, "it is for linux/s390x");
        check(r#"{"architecture":"amd64","os":"windows"}"#, "it is for windows/amd64");
        check(r#"{"rootfs":{"diff_ids":["sha256:../../etc"]}}"#, "is not a digest");
    }

    #[test]
    fn chains() {
        let ids: Vec<String> = ["a", "b"].iter().map(|c| format!("sha256:{}", c.repeat(64))).collect();
        let chain = chain_ids(&ids);
        assert_eq!(chain[0], ids[0]);
        assert_eq!(chain[1], digest(format!("{} {}", ids[0], ids[1]).as_bytes()));
    }
}
