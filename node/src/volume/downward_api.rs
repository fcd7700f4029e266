//! `downwardAPI`: what the pod can learn about itself, as files. Upstream: `pkg/volume/downwardapi`.

use super::atomic_writer::{File, Payload};
use super::{MODE_DEFAULT, Mounted, Mounting, VolumeError, VolumeType, mode, user};
use crate::downward;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, Volume};

pub(super) struct DownwardApi;

impl VolumeType for DownwardApi {
    fn directory(&self) -> &'static str {
        "kubernetes.io~downward-api"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.downward_api.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let Some(source) = &mounting.volume.downward_api else {
                return Err(VolumeError::invalid("no volume plugin matched"));
            };
            let default_mode = mode(source.default_mode, MODE_DEFAULT);
            let items = source.items.as_deref().unwrap_or_default();
            let payload = files(mounting, items, default_mode, user(source.default_user))?;
            mounting.write(self.directory(), payload).map(Mounted::read_only_at)
        })
    }

    fn shows_pod(&self, _: &Volume) -> bool {
        true
    }
}

pub(super) fn files(
    mounting: &Mounting<'_>,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    default_user: Option<u32>,
) -> Result<Payload, VolumeError> {
    let mut payload = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(&field.field_path, mounting.def, mounting.facts),
            (None, Some(selector)) => downward::resource(selector, mounting.def, None, mounting.facts),
            (None, None) => Ok(String::new()),
        };
        let data = text.map_err(VolumeError::invalid)?.into_bytes();
        let file = File { data, mode: mode(item.mode, default_mode), user: user(item.user).or(default_user) };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}
