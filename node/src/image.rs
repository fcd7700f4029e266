//! Images of containers: whether to pull, with which credentials, and what is told about it.
//! Upstream: `pkg/kubelet/images`, `pkg/credentialprovider`.

use crate::container_spec::ResolvedImage;
use crate::objects::Objects;
use crate::spec::{ContainerDef, PodDef};
use crate::status::WaitReason;
use base64::Engine;
use k8s_openapi::api::core::v1::Secret;
use runtime::{Auth, Error, Image, PullRequest, Runtime};
use std::time::{Duration, Instant};

/// What a try to have an image came to.
#[derive(Debug)]
pub(crate) struct Tried {
    /// The image, or why not.
    pub outcome: Result<ResolvedImage, WaitReason>,
    /// Events that it deserves: whether a warning, reason, message.
    pub events: Vec<(bool, &'static str, String)>,
    /// Whether a registry refused or failed, so that the next try has to wait.
    pub failed_pull: bool,
}

/// Brings the image of a container here, by its policy.
pub(crate) async fn ensure(
    runtime: &dyn Runtime,
    def: &PodDef,
    container: &ContainerDef,
    objects: &dyn Objects,
) -> Tried {
    let name = container.image().to_owned();
    let policy = container.spec.image_pull_policy.clone().unwrap_or_else(|| default_policy(&name).to_owned());
    let mut events = Vec::new();
    let normal = match runtime::image::normalise(&name) {
        Ok(normal) => normal,
        Err(error) => {
            let message = format!(
                "Failed to apply default image tag \"{name}\": couldn't parse image name \"{name}\": {error}"
            );
            events.push((true, "InspectFailed", message.clone()));
            return refused("InvalidImageName", message, events);
        }
    };
    if policy != "Always" {
        match runtime.image(&name).await {
            Ok(Some(image)) => {
                let text = format!(
                    "Container image \"{name}\" already present on machine and can be accessed by the pod"
                );
                events.push((false, "Pulled", text));
                return Tried { outcome: Ok(resolved(image, &normal)), events, failed_pull: false };
            }
            Ok(None) => {}
            Err(error) => {
                let message = format!("Failed to inspect image \"{name}\": {error}");
                events.push((true, "InspectFailed", message.clone()));
                return refused("ImageInspectError", message, events);
            }
        }
    }
    if policy == "Never" {
        let message = format!("Container image \"{name}\" is not present with pull policy of Never");
        events.push((true, "ErrImageNeverPull", message.clone()));
        return refused("ErrImageNeverPull", message, events);
    }
    events.push((false, "Pulling", format!("Pulling image \"{name}\"")));
    let begun = Instant::now();
    let request =
        PullRequest { reference: name.clone(), auth: credentials(def, &normal, objects), progress: None };
    match runtime.pull_image(request).await {
        Ok(pulled) => {
            let took = go_milliseconds(begun.elapsed());
            let text = format!(
                "Successfully pulled image \"{name}\" in {took} ({took} including waiting). Image size: {} bytes.",
                pulled.image.bytes
            );
            events.push((false, "Pulled", text));
            Tried { outcome: Ok(resolved(pulled.image, &normal)), events, failed_pull: false }
        }
        Err(error) => {
            events.push((true, "Failed", format!("Failed to pull image \"{name}\": {error}")));
            let reason = match error {
                Error::InvalidReference { .. } => "InvalidImageName",
                Error::RegistryUnavailable { .. } => "RegistryUnavailable",
                _ => "ErrImagePull",
            };
            // Upstream shows most failures of a registry as ErrImagePull.
            let reason = if reason == "RegistryUnavailable" { "ErrImagePull" } else { reason };
            let tried =
                refused(reason, format!("failed to pull and unpack image \"{normal}\": {error}"), events);
            Tried { failed_pull: true, ..tried }
        }
    }
}

fn refused(reason: &str, message: String, events: Vec<(bool, &'static str, String)>) -> Tried {
    let outcome = Err(WaitReason { reason: reason.to_owned(), message });
    Tried { outcome, events, failed_pull: false }
}

/// The API's default: `Always` for `:latest` or no tag.
fn default_policy(name: &str) -> &'static str {
    let last = name.rsplit('/').next().unwrap_or_default();
    if name.contains('@') {
        return "IfNotPresent";
    }
    match last.split_once(':') {
        Some((_, tag)) if tag != "latest" => "IfNotPresent",
        _ => "Always",
    }
}

fn resolved(image: Image, normal: &str) -> ResolvedImage {
    let repository = repository(normal);
    let same = |name: &&String| crate::image::repository(name) == repository;
    let name = image.names.iter().find(|name| *name == normal).or_else(|| image.names.iter().find(same));
    let name = name.cloned().unwrap_or_else(|| normal.to_owned());
    let digest = image.digests.iter().find(same).or_else(|| image.digests.first()).cloned();
    let digest = digest.unwrap_or_else(|| image.id.clone());
    ResolvedImage { image, name, digest }
}

/// A normalised name without tag and digest.
pub(crate) fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or_default();
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

fn go_milliseconds(elapsed: Duration) -> String {
    match elapsed.as_millis() {
        millis if millis < 1000 => format!("{millis}ms"),
        _ => format!("{}s", (elapsed.as_secs_f64() * 1000.0).round() / 1000.0),
    }
}

/// The credentials of the pod's pull secrets that fit an image, best fit first.
fn credentials(def: &PodDef, normal: &str, objects: &dyn Objects) -> Vec<Auth> {
    let names = def.spec().image_pull_secrets.iter().flatten().map(|reference| reference.name.as_str());
    let secrets = names.filter_map(|name| objects.secret(def.namespace(), name));
    let mut found: Vec<(usize, Auth)> = secrets.flat_map(|secret| of_secret(&secret, normal)).collect();
    found.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
    found.into_iter().map(|(_, auth)| auth).collect()
}

#[derive(serde::Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Default, serde::Deserialize)]
struct DockerAuth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

fn of_secret(secret: &Secret, normal: &str) -> Vec<(usize, Auth)> {
    let data = secret.data.as_ref();
    let json = data.and_then(|data| data.get(".dockerconfigjson")).map(|value| value.0.as_slice());
    let legacy = data.and_then(|data| data.get(".dockercfg")).map(|value| value.0.as_slice());
    let auths = match (json, legacy) {
        (Some(json), _) => serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths),
        (None, Some(legacy)) => serde_json::from_slice(legacy),
        (None, None) => return Vec::new(),
    };
    // A secret that cannot be read gives no credentials; upstream logs and goes on as well.
    let auths = auths.unwrap_or_default();
    auths.into_iter().filter_map(|(server, auth)| Some((fit(&server, normal)?, basic(auth)?))).collect()
}

fn basic(auth: DockerAuth) -> Option<Auth> {
    if !auth.username.is_empty() {
        return Some(Auth::Basic { username: auth.username, password: auth.password });
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    Some(Auth::Basic { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned() })
}

/// How well a server of a docker config fits an image: the length of what matches.
fn fit(server: &str, normal: &str) -> Option<usize> {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = match server {
        "index.docker.io/v1" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other.trim_end_matches("/v1").trim_end_matches("/v2"),
    };
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let (image_host, image_path) = normal.split_once('/')?;
    let host_fits = match host.strip_prefix("*.") {
        Some(domain) => image_host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => host == image_host,
    };
    (host_fits && image_path.starts_with(path)).then_some(server.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_names() {
        assert_eq!(default_policy("busybox"), "Always");
        assert_eq!(default_policy("a:5000/busybox"), "Always");
        assert_eq!(default_policy("busybox:1"), "IfNotPresent");
        assert_eq!(default_policy("busybox@sha256:0"), "IfNotPresent");
        assert_eq!(repository("a:5000/b:1@sha256:0"), "a:5000/b");
        let image = Image {
            id: "sha256:1".into(),
            names: vec!["r/a:1".into(), "r/b:2".into()],
            digests: vec!["r/b@sha256:9".into()],
            ..Default::default()
        };
        let shown = resolved(image.clone(), "r/b:2");
        assert_eq!((shown.name.as_str(), shown.digest.as_str()), ("r/b:2", "r/b@sha256:9"));
        assert_eq!(resolved(Image { digests: vec![], ..image }, "r/c:1").digest, "sha256:1");
    }

    #[test]
    fn credentials_fit_by_registry_and_path() {
        let check = |server: &str, image: &str, expect: bool| {
            assert_eq!(fit(server, image).is_some(), expect, "{server} {image}")
        };
        check("https://index.docker.io/v1/", "docker.io/library/busybox:1", true);
        check("quay.io", "quay.io/a/b:1", true);
        check("quay.io/a", "quay.io/a/b:1", true);
        check("quay.io/c", "quay.io/a/b:1", false);
        check("*.example.com", "r.example.com/a:1", true);
        check("*.example.com", "r.x.example.com/a:1", false);
        let auth = DockerAuth {
            auth: base64::engine::general_purpose::STANDARD.encode("u:p:w"),
            ..Default::default()
        };
        assert_eq!(basic(auth), Some(Auth::Basic { username: "u".into(), password: "p:w".into() }));
    }
}
