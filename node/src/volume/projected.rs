//! `projected`: several sources in one directory. Upstream: `pkg/volume/projected`.

use super::atomic_writer::{File, Payload};
use super::config_map::Files;
use super::token::TokenFor;
use super::{MODE_DEFAULT, Mounted, Mounting, VolumeError, VolumeType, mode, reference, user};
use super::{config_map, downward_api, secret};
use crate::objects::{Followed, Reference};
use crate::spec::PodDef;
use api::Timestamp;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ServiceAccountTokenProjection, Volume, VolumeProjection};

pub(super) struct Projected;

/// The API's default.
const TOKEN_SECONDS_DEFAULT: i64 = 3600;

impl VolumeType for Projected {
    fn directory(&self) -> &'static str {
        "kubernetes.io~projected"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.projected.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let Some(source) = &mounting.volume.projected else {
                return Err(VolumeError::invalid("no volume plugin matched"));
            };
            let files = Files {
                default_mode: mode(source.default_mode, MODE_DEFAULT),
                user: user(source.default_user),
            };
            let mut payload = Payload::new();
            let mut refresh_at: Option<Timestamp> = None;
            let mut errors = Vec::new();
            for projection in source.sources.iter().flatten() {
                if let Some(wanted) = &projection.service_account_token {
                    let (file, until) = token(mounting, wanted, &files).await?;
                    payload.insert(wanted.path.clone(), file);
                    refresh_at = Some(refresh_at.map_or(until, |own| own.min(until)));
                    continue;
                }
                match plain(mounting, projection, &files) {
                    Ok(more) => payload.extend(more),
                    Err(error) => errors.push(error),
                }
            }
            // All that is wrong is told at once, as upstream does.
            match errors.len() {
                0 => {}
                1 => return Err(errors.remove(0)),
                _ => {
                    let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
                    return Err(VolumeError::invalid(format!("[{}]", list.join(", "))));
                }
            }
            let path = mounting.write(self.directory(), payload)?;
            Ok(Mounted { refresh_at, ..Mounted::read_only_at(path) })
        })
    }

    fn references(&self, def: &PodDef, volume: &Volume) -> Vec<Reference> {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let of = |projection: &VolumeProjection| {
            let map =
                projection.config_map.as_ref().map(|own| reference(Followed::ConfigMap, def, &own.name));
            let secret = projection.secret.as_ref().map(|own| reference(Followed::Secret, def, &own.name));
            map.into_iter().chain(secret).collect::<Vec<_>>()
        };
        sources.flat_map(of).collect()
    }

    fn shows_pod(&self, volume: &Volume) -> bool {
        let mut sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        sources.any(|projection| projection.downward_api.is_some())
    }
}

fn plain(
    mounting: &Mounting<'_>,
    projection: &VolumeProjection,
    files: &Files,
) -> Result<Payload, VolumeError> {
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        let map = config_map::find(mounting, &source.name, optional)?;
        return files.of("configmap", config_map::data(map), source.items.as_deref(), optional);
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        let found = secret::find(mounting, &source.name, optional)?;
        return files.of("secret", secret::data(found), source.items.as_deref(), optional);
    }
    if let Some(source) = &projection.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        return downward_api::files(mounting, items, files.default_mode, files.user);
    }
    let kind = match projection {
        VolumeProjection { cluster_trust_bundle: Some(_), .. } => "clusterTrustBundle",
        VolumeProjection { pod_certificate: Some(_), .. } => "podCertificate",
        _ => "of an unknown kind",
    };
    Err(VolumeError::invalid(format!("projected sources {kind} are not supported by this node")))
}

async fn token(
    mounting: &Mounting<'_>,
    wanted: &ServiceAccountTokenProjection,
    files: &Files,
) -> Result<(File, Timestamp), VolumeError> {
    let def = mounting.def;
    let account =
        def.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
    let wanted_token = TokenFor {
        namespace: def.namespace().to_owned(),
        service_account: account.to_owned(),
        pod_name: def.name().to_owned(),
        pod_uid: def.uid().to_owned(),
        audience: wanted.audience.clone().unwrap_or_default(),
        expiration_seconds: wanted.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT),
    };
    let token = mounting.tokens.token(wanted_token, mounting.now).await?;
    let owner = user(wanted.user).or_else(|| common_user(def)).or(files.user);
    // Only its owner (and the pod's group) reads a token, where there is one; else everybody in the pod must.
    let private = owner.is_some() || mounting.fs_group().is_some();
    let mode = if private { 0o600 } else { files.default_mode };
    Ok((File { data: token.text.into_bytes(), mode, user: owner }, token.refresh_at))
}

/// The user that all containers run as, if it is one and the same. Upstream: `securitycontext.DetermineEffectiveRunAsUser` for all.
fn common_user(def: &PodDef) -> Option<u32> {
    let pod = def.spec().security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = def.containers.iter().map(|container| {
        container.spec.security_context.as_ref().and_then(|context| context.run_as_user).or(pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first).and_then(|user| u32::try_from(user).ok())
}
