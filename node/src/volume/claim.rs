//! `persistentVolumeClaim` and `ephemeral`: a claim, bound to a volume that lies on this machine. Upstream: `pkg/volume/local`,
//! `pkg/kubelet/volumemanager`.

use super::{Mounted, Mounting, VolumeError, VolumeType, host_path, ownership};
use api::Status;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{PersistentVolume, Volume};

pub(super) struct Claim;

impl VolumeType for Claim {
    fn directory(&self) -> &'static str {
        "kubernetes.io~local-volume"
    }

    fn is(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some()
    }

    fn mount<'a>(&'a self, mounting: &'a Mounting<'a>) -> BoxFuture<'a, Result<Mounted, VolumeError>> {
        Box::pin(async move {
            let volume = mounting.volume;
            let (name, read_only) = match &volume.persistent_volume_claim {
                Some(source) => (source.claim_name.clone(), source.read_only.unwrap_or(false)),
                None => (format!("{}-{}", mounting.def.name(), volume.name), false),
            };
            let bound = find(mounting, &name).await?;
            let path = prepare(&bound)?;
            if let Some(group) = mounting.fs_group().filter(|_| !read_only) {
                let policy = mounting.def.spec().security_context.as_ref();
                let policy = policy.and_then(|context| context.fs_group_change_policy.as_deref());
                if policy != Some("OnRootMismatch") || !ownership::is_given(&path, group) {
                    let root = path.clone();
                    let given =
                        tokio::task::spawn_blocking(move || ownership::give(&root, group, false)).await;
                    given.map_err(|error| VolumeError::invalid(error.to_string()))??;
                }
            }
            Ok(Mounted { read_only, ..Mounted::at(path) })
        })
    }
}

async fn find(mounting: &Mounting<'_>, name: &str) -> Result<PersistentVolume, VolumeError> {
    let failed = |kind, name: &str, error: Status| match error.is_not_found() {
        true => VolumeError::NotFound { kind, name: name.to_owned() },
        false => VolumeError::invalid(error.message),
    };
    let claim = mounting.objects.claim(mounting.def.namespace(), name).await;
    let claim = claim.map_err(|error| failed("persistentvolumeclaim", name, error))?;
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.and_then(|spec| spec.volume_name).filter(|_| bound);
    let volume = volume.ok_or_else(|| VolumeError::invalid(format!("PVC {name} is not bound")))?;
    let found = mounting.objects.persistent_volume(&volume).await;
    found.map_err(|error| failed("persistentvolume", &volume, error))
}

fn prepare(volume: &PersistentVolume) -> Result<std::path::PathBuf, VolumeError> {
    let spec = volume.spec.as_ref();
    if let Some(source) = spec.and_then(|spec| spec.host_path.as_ref()) {
        return host_path::prepare(&source.path, source.type_.as_deref().unwrap_or_default());
    }
    if let Some(source) = spec.and_then(|spec| spec.local.as_ref()) {
        return host_path::prepare(&source.path, "Directory");
    }
    Err(VolumeError::invalid("no volume plugin matched"))
}
