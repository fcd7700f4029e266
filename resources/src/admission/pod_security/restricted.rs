//! Checks that demand of pods what hardened ones do anyway. Upstream: `pod-security-admission/policy`.

use super::baseline::{confines, pod_seccomp, seccomp, seccomp_of};
use super::subject::{Finding, Set, Subject, View, containers, plural, quoted, setters};
use k8s_openapi::api::core::v1::Volume;
use std::collections::BTreeSet;

pub(super) fn privilege_escalation(pod: &Subject<'_>) -> Option<Finding> {
    let names = pod.named(|view| view.security.and_then(|own| own.allow_privilege_escalation) != Some(false));
    (!names.is_empty()).then(|| Finding {
        reason: "allowPrivilegeEscalation != false",
        detail: format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)),
    })
}

pub(super) fn privilege_escalation_1_25(pod: &Subject<'_>) -> Option<Finding> {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub(super) fn capabilities(pod: &Subject<'_>) -> Option<Finding> {
    let drops_all = |view: &View<'_>| {
        let dropped = view.capabilities().and_then(|own| own.drop.as_ref());
        dropped.is_some_and(|own| own.iter().any(|name| name == "ALL"))
    };
    let added = |view: &View<'_>| -> Vec<String> {
        let added = view.capabilities().and_then(|own| own.add.clone()).unwrap_or_default();
        added.into_iter().filter(|own| own != "NET_BIND_SERVICE").collect()
    };
    let keeping = pod.named(|view| !drops_all(view));
    let adding = pod.named(|view| !added(view).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let all: BTreeSet<String> = pod.containers.iter().flat_map(added).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(all)
        ));
    }
    (!details.is_empty()).then(|| Finding { reason: "unrestricted capabilities", detail: details.join("; ") })
}

pub(super) fn capabilities_1_25(pod: &Subject<'_>) -> Option<Finding> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

/// The kind of a volume that is not allowed.
fn restricted_kind(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    let kinds = [
        (volume.host_path.is_some(), "hostPath"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.fc.is_some(), "fc"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
    ];
    kinds.into_iter().find(|(own, _)| *own).map(|(_, kind)| kind).or(Some("unknown"))
}

pub(super) fn volumes(pod: &Subject<'_>) -> Option<Finding> {
    let bad = || {
        let all = pod.spec.volumes.iter().flatten();
        all.filter_map(|own| restricted_kind(own).map(|kind| (own.name.as_str(), kind)))
    };
    let names: Vec<&str> = bad().map(|(name, _)| name).collect();
    let kinds: Set<'_> = bad().map(|(_, kind)| kind).collect();
    (!names.is_empty()).then(|| Finding {
        reason: "restricted volume types",
        detail: format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural("restricted volume type", "restricted volume types", kinds.len()),
            quoted(&kinds)
        ),
    })
}

pub(super) fn non_root(pod: &Subject<'_>) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    let whole = pod.security().and_then(|own| own.run_as_non_root);
    let of = |view: &View<'_>| view.security.and_then(|own| own.run_as_non_root);
    let names = pod.named(|view| of(view) == Some(false));
    let setters = setters(whole == Some(false), &names);
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and "));
        return Finding::some(REASON, detail);
    }
    let unset = pod.named(|view| of(view).is_none() && whole != Some(true));
    (!unset.is_empty()).then(|| Finding {
        reason: REASON,
        detail: format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&unset)),
    })
}

pub(super) fn non_root_1_35(pod: &Subject<'_>) -> Option<Finding> {
    if pod.has_user_namespace() { None } else { non_root(pod) }
}

pub(super) fn run_as_user(pod: &Subject<'_>) -> Option<Finding> {
    let whole = pod.security().and_then(|own| own.run_as_user) == Some(0);
    let names = pod.named(|view| view.security.and_then(|own| own.run_as_user) == Some(0));
    let setters = setters(whole, &names);
    (!setters.is_empty()).then(|| Finding {
        reason: "runAsUser=0",
        detail: format!("{} must not set runAsUser=0", setters.join(" and ")),
    })
}

pub(super) fn run_as_user_1_35(pod: &Subject<'_>) -> Option<Finding> {
    if pod.has_user_namespace() { None } else { run_as_user(pod) }
}

pub(super) fn seccomp_set(pod: &Subject<'_>) -> Option<Finding> {
    if let Some(finding) = seccomp(pod) {
        return Some(finding);
    }
    let is_set = pod_seccomp(pod).is_some_and(|own| confines(&own));
    let unset = pod.named(|view| seccomp_of(view).is_none() && !is_set);
    (!unset.is_empty()).then(|| Finding {
        reason: "seccompProfile",
        detail: format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&unset)
        ),
    })
}

pub(super) fn seccomp_set_1_25(pod: &Subject<'_>) -> Option<Finding> {
    if pod.is_windows() { None } else { seccomp_set(pod) }
}
