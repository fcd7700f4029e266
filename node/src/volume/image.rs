//! `image`: the files of an image, read only. The runtime mounts them; pulling is the worker's part. Upstream: `pkg/volume/image`.

use super::{Files, Mounted, Mounting, VolumeError, VolumeType};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Volume;

pub(super) struct ImageVolume;

impl VolumeType for ImageVolume {
    fn directory(&self) -> &'static str {
        "kubernetes.io~image"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.image.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let source = mounting.volume.image.as_ref();
            let reference = source.and_then(|source| source.reference.clone()).unwrap_or_default();
            Ok(Mounted { files: Files::Image(reference), read_only: true, refresh_at: None })
        })
    }
}
