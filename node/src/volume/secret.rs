//! `secret`: the keys of a secret as files. Upstream: `pkg/volume/secret`.

use super::config_map::Files;
use super::{MODE_DEFAULT, Mounted, Mounting, VolumeError, VolumeType, mode, reference, user};
use crate::objects::{Followed, Reference};
use crate::spec::PodDef;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Secret, Volume};
use std::collections::BTreeMap;

pub(super) struct SecretVolume;

impl VolumeType for SecretVolume {
    fn directory(&self) -> &'static str {
        "kubernetes.io~secret"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.secret.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let Some(source) = &mounting.volume.secret else {
                return Err(VolumeError::invalid("no volume plugin matched"));
            };
            let optional = source.optional.unwrap_or(false);
            let secret = find(mounting, source.secret_name.as_deref().unwrap_or_default(), optional)?;
            let files = Files {
                default_mode: mode(source.default_mode, MODE_DEFAULT),
                user: user(source.default_user),
            };
            let payload = files.of("secret", data(secret), source.items.as_deref(), optional)?;
            mounting.write(self.directory(), payload).map(Mounted::read_only_at)
        })
    }

    fn references(&self, def: &PodDef, volume: &Volume) -> Vec<Reference> {
        let name = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref());
        name.into_iter().map(|name| reference(Followed::Secret, def, name)).collect()
    }
}

pub(super) fn find(
    mounting: &Mounting<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<Secret>, VolumeError> {
    match mounting.objects.secret(mounting.def.namespace(), name) {
        None if !optional => Err(VolumeError::NotFound { kind: "secret", name: name.to_owned() }),
        found => Ok(found),
    }
}

pub(super) fn data(secret: Option<Secret>) -> BTreeMap<String, Vec<u8>> {
    let data = secret.and_then(|secret| secret.data).into_iter().flatten();
    data.map(|(key, value)| (key, value.0)).collect()
}
