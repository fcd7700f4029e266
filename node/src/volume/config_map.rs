//! `configMap`: the keys of a config map as files. Upstream: `pkg/volume/configmap`.

use super::atomic_writer::{File, Payload};
use super::{MODE_DEFAULT, Mounted, Mounting, VolumeError, VolumeType, mode, reference, user};
use crate::objects::{Followed, Reference};
use crate::spec::PodDef;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Volume};
use std::collections::BTreeMap;

pub(super) struct ConfigMapVolume;

impl VolumeType for ConfigMapVolume {
    fn directory(&self) -> &'static str {
        "kubernetes.io~configmap"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.config_map.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let Some(source) = &mounting.volume.config_map else {
                return Err(VolumeError::invalid("no volume plugin matched"));
            };
            let optional = source.optional.unwrap_or(false);
            let map = find(mounting, &source.name, optional)?;
            let files = Files {
                default_mode: mode(source.default_mode, MODE_DEFAULT),
                user: user(source.default_user),
            };
            let payload = files.of("configmap", data(map), source.items.as_deref(), optional)?;
            mounting.write(self.directory(), payload).map(Mounted::read_only_at)
        })
    }

    fn references(&self, def: &PodDef, volume: &Volume) -> Vec<Reference> {
        volume.config_map.iter().map(|source| reference(Followed::ConfigMap, def, &source.name)).collect()
    }
}

pub(super) fn find(
    mounting: &Mounting<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<ConfigMap>, VolumeError> {
    match mounting.objects.config_map(mounting.def.namespace(), name) {
        None if !optional => Err(VolumeError::NotFound { kind: "configmap", name: name.to_owned() }),
        found => Ok(found),
    }
}

pub(super) fn data(map: Option<ConfigMap>) -> BTreeMap<String, Vec<u8>> {
    let Some(map) = map else { return BTreeMap::new() };
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    text.chain(map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect()
}

/// How keys become files.
pub(super) struct Files {
    pub(super) default_mode: u32,
    pub(super) user: Option<u32>,
}

impl Files {
    /// All keys, or those that `items` names.
    pub(super) fn of(
        &self,
        kind: &'static str,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
    ) -> Result<Payload, VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            let file = |(key, data)| (key, File { data, mode: self.default_mode, user: self.user });
            return Ok(data.into_iter().map(file).collect());
        };
        let mut payload = Payload::new();
        for item in items {
            let Some(data) = data.get_mut(&item.key) else {
                if optional {
                    continue;
                }
                return Err(VolumeError::NoKey { kind, key: item.key.clone() });
            };
            let file = File {
                data: data.clone(),
                mode: mode(item.mode, self.default_mode),
                user: user(item.user).or(self.user),
            };
            payload.insert(item.path.clone(), file);
        }
        Ok(payload)
    }
}
