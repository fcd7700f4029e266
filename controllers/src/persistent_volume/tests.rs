use super::bind::{claim_bound, claim_status, volume_bound};
use super::claim::{self, Step, bound, unbound};
use super::volume;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

/// A claim `n/c` for 5Gi, ReadWriteOnce, without a class; `changes` are merged into it.
fn claim(changes: Value) -> PersistentVolumeClaim {
    let mut object = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "status": {"phase": "Pending"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "resources": {"requests": {"storage": "5Gi"}}}});
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

/// An available volume of 10Gi, ReadWriteOnce, without a class.
fn volume(name: &str, changes: Value) -> PersistentVolume {
    let mut object = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "hostPath": {"path": "/x"}}});
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn class(name: &str, provisioner: &str, mode: &str, default: bool) -> StorageClass {
    let annotations = json!({"storageclass.kubernetes.io/is-default-class": default.to_string()});
    serde_json::from_value(
        json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": provisioner,
        "volumeBindingMode": mode}),
    )
    .unwrap()
}

fn merge(target: &mut Value, changes: Value) {
    match changes {
        Value::Object(changes) => {
            for (key, value) in changes {
                merge(&mut target[key.as_str()], value);
            }
        }
        value => *target = value,
    }
}

fn told(told: &claim::Told) -> String {
    format!("{:?} {}: {}", told.kind, told.reason, told.message)
}

fn text(step: &Step) -> String {
    match step {
        Step::Bind(volume) => format!("bind {}", volume.metadata.name.as_deref().unwrap()),
        Step::Wait(None) => "wait".to_owned(),
        Step::Wait(Some(own)) => format!("wait, {}", told(own)),
        Step::Lost(own) => format!("lost, {}", told(own)),
        Step::Class(name) => format!("class {name}"),
        Step::Provision { provisioner, told: own } => format!("provision {provisioner}, {}", told(own)),
    }
}

#[test]
fn the_closest_volume_is_taken() {
    let check = |changes: Value, volumes: Vec<PersistentVolume>, expect: &str| {
        let found = text(&unbound(&claim(changes.clone()), &volumes, &[], Vec::new));
        assert_eq!(found.split(',').next().unwrap(), expect, "{changes}");
    };
    let size = |name: &str, size: &str| volume(name, json!({"spec": {"capacity": {"storage": size}}}));
    check(json!({}), vec![size("big", "20Gi"), size("small", "6Gi"), size("tiny", "1Gi")], "bind small");
    check(json!({}), vec![size("b", "6Gi"), size("a", "6144Mi")], "bind a");
    check(json!({}), vec![size("tiny", "1Gi")], "wait");
    let modes = |name: &str, modes: Value| volume(name, json!({"spec": {"accessModes": modes}}));
    let many = modes("many", json!(["ReadWriteOnce", "ReadWriteMany"]));
    check(
        json!({}),
        vec![many.clone(), volume("one", json!({"spec": {"capacity": {"storage": "50Gi"}}}))],
        "bind one",
    );
    check(
        json!({"spec": {"accessModes": ["ReadWriteMany"]}}),
        vec![volume("one", json!({})), many],
        "bind many",
    );
    let meant = volume(
        "meant",
        json!({"spec": {"capacity": {"storage": "90Gi"}, "storageClassName": "other",
        "claimRef": {"namespace": "n", "name": "c"}}}),
    );
    check(json!({}), vec![volume("free", json!({})), meant], "bind meant");
    let others = volume("others", json!({"spec": {"claimRef": {"namespace": "n", "name": "d"}}}));
    let earlier =
        volume("earlier", json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "old"}}}));
    check(json!({}), vec![others, earlier], "wait");
    check(json!({}), vec![volume("v", json!({"status": {"phase": "Released"}}))], "wait");
    check(json!({}), vec![volume("v", json!({"spec": {"storageClassName": "s"}}))], "wait");
    check(json!({}), vec![volume("v", json!({"spec": {"volumeMode": "Block"}}))], "wait");
    check(json!({}), vec![volume("v", json!({"spec": {"volumeAttributesClassName": "gold"}}))], "wait");
    check(
        json!({}),
        vec![volume("v", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))],
        "wait",
    );
    let selects = json!({"spec": {"selector": {"matchLabels": {"disk": "ssd"}}}});
    check(selects.clone(), vec![volume("v", json!({}))], "wait");
    check(selects, vec![volume("v", json!({"metadata": {"labels": {"disk": "ssd"}}}))], "bind v");
    let old_way = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "s"}}});
    check(old_way, vec![volume("v", json!({"spec": {"storageClassName": "s"}}))], "bind v");
}

#[test]
fn a_claim_without_a_volume_waits_or_asks() {
    let check = |changes: Value, classes: &[StorageClass], pods: &[&str], expect: &str| {
        let waiting = || pods.iter().map(|name| (*name).to_owned()).collect();
        let found = text(&unbound(&claim(changes.clone()), &[volume("v", json!({}))], classes, waiting));
        assert!(found.starts_with(expect), "{changes}: {found}");
    };
    let of = |class: Value| json!({"spec": {"storageClassName": class, "accessModes": ["ReadWriteMany"]}});
    check(
        of(json!("")),
        &[class("d", "p", "Immediate", true)],
        &[],
        "wait, Normal FailedBinding: no persistent volumes available for this claim and no storage class is set",
    );
    check(
        of(Value::Null),
        &[class("d", "p", "Immediate", true), class("e", "p", "Immediate", false)],
        &[],
        "class d",
    );
    check(of(Value::Null), &[class("e", "p", "Immediate", false)], &[], "wait, Normal FailedBinding");
    check(
        of(json!("s")),
        &[],
        &[],
        "wait, Warning ProvisioningFailed: storageclass.storage.k8s.io \"s\" not found",
    );
    let manual = "kubernetes.io/no-provisioner";
    check(
        of(json!("s")),
        &[class("s", manual, "Immediate", false)],
        &[],
        "wait, Warning ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner",
    );
    check(
        of(json!("s")),
        &[class("s", "x.io/y", "Immediate", false)],
        &[],
        "provision x.io/y, Normal ExternalProvisioning: Waiting for a volume to be created either by the external \
         provisioner 'x.io/y' or manually",
    );
    let delayed = [class("s", "x.io/y", "WaitForFirstConsumer", false)];
    check(
        of(json!("s")),
        &delayed,
        &[],
        "wait, Normal WaitForFirstConsumer: waiting for first consumer to be created before binding",
    );
    check(
        of(json!("s")),
        &delayed,
        &["p"],
        "wait, Normal WaitForPodScheduled: waiting for pod p to be scheduled",
    );
    check(
        of(json!("s")),
        &delayed,
        &["p", "q"],
        "wait, Normal WaitForPodScheduled: waiting for pods p,q to be",
    );
    let mut chosen = of(json!("s"));
    chosen["metadata"] = json!({"annotations": {"volume.kubernetes.io/selected-node": "n1"}});
    check(chosen, &delayed, &[], "provision x.io/y");
}

#[test]
fn binding_that_waits_for_a_pod_takes_only_what_is_meant() {
    let check = |claim_ref: Value, expect: &str| {
        let spec = json!({"spec": {"storageClassName": "s", "claimRef": claim_ref}});
        let own = claim(json!({"spec": {"storageClassName": "s"}}));
        let classes = [class("s", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", false)];
        let found = text(&unbound(&own, &[volume("v", spec)], &classes, Vec::new));
        assert!(found.starts_with(expect), "{found}");
    };
    check(Value::Null, "wait, Normal WaitForFirstConsumer");
    check(json!({"namespace": "n", "name": "c"}), "bind v");
}

#[test]
fn a_claim_may_name_its_volume() {
    let check = |changes: Value, expect: &str| {
        let own = claim(json!({"spec": {"volumeName": "v"}}));
        assert_eq!(text(&unbound(&own, &[volume("v", changes.clone())], &[], Vec::new)), expect, "{changes}");
    };
    check(json!({}), "bind v");
    check(json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}), "bind v");
    check(json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}}}), "bind v");
    check(
        json!({"spec": {"claimRef": {"namespace": "n", "name": "d"}}}),
        "wait, Warning FailedBinding: volume \"v\" already bound to a different claim.",
    );
    let mismatch =
        |why: &str| format!("wait, Warning VolumeMismatch: Cannot bind to requested volume \"v\": {why}");
    check(json!({"spec": {"capacity": {"storage": "1Gi"}}}), &mismatch("requested PV is too small"));
    check(json!({"spec": {"storageClassName": "s"}}), &mismatch("storageClassName does not match"));
    check(json!({"spec": {"volumeMode": "Block"}}), &mismatch("incompatible volumeMode"));
    check(json!({"spec": {"accessModes": ["ReadOnlyMany"]}}), &mismatch("incompatible accessMode"));
    let none =
        unbound(&claim(json!({"spec": {"volumeName": "w"}})), &[volume("v", json!({}))], &[], Vec::new);
    assert_eq!(text(&none), "wait");
}

#[test]
fn a_bound_claim_keeps_its_volume_or_is_lost() {
    let check = |name: &str, volume: Option<PersistentVolume>, expect: &str| {
        let own = claim(json!({"spec": {"volumeName": name}}));
        assert_eq!(text(&bound(&own, volume.as_ref())), expect);
    };
    let named = |uid: &str| {
        Some(volume("v", json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": uid}}})))
    };
    check("v", named("u"), "bind v");
    check("v", Some(volume("v", json!({}))), "bind v");
    check(
        "v",
        named("other"),
        "lost, Warning ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly",
    );
    let lost = "lost, Warning ClaimLost: Bound claim has lost";
    check("v", None, &format!("{lost} its PersistentVolume. Data on the volume is lost!"));
    check("", None, &format!("{lost} reference to PersistentVolume. Data on the volume is lost!"));
}

#[test]
fn each_step_of_a_binding_is_done_once() {
    let (own, free) = (claim(json!({})), volume("v", json!({})));
    let named = volume_bound(&free, &own).unwrap();
    let claim_ref = named.spec.as_ref().unwrap().claim_ref.as_ref().unwrap();
    assert_eq!(
        (claim_ref.kind.as_deref(), claim_ref.uid.as_deref()),
        (Some("PersistentVolumeClaim"), Some("u"))
    );
    assert_eq!(named.metadata.annotations.as_ref().unwrap()["pv.kubernetes.io/bound-by-controller"], "yes");
    assert_eq!(volume_bound(&named, &own), None);
    // What its maker has meant for the claim was not chosen here.
    let meant = volume("v", json!({"spec": {"claimRef": {"namespace": "n", "name": "c"}}}));
    let named = volume_bound(&meant, &own).unwrap();
    assert_eq!(named.metadata.annotations, None);
    assert_eq!(named.spec.unwrap().claim_ref.unwrap().uid.as_deref(), Some("u"));

    let with_volume = claim_bound(&own, &free).unwrap();
    let annotations: Vec<_> = with_volume.metadata.annotations.as_ref().unwrap().keys().cloned().collect();
    assert_eq!(annotations, ["pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"]);
    assert_eq!(claim_bound(&with_volume, &free), None);
    let status = claim_status(&with_volume, &free).unwrap();
    let told = status.status.as_ref().unwrap();
    assert_eq!(
        (told.phase.as_deref(), told.capacity.as_ref().unwrap()["storage"].0.as_str()),
        (Some("Bound"), "10Gi")
    );
    let larger = volume("v", json!({"spec": {"capacity": {"storage": "20Gi"}}}));
    assert_eq!(claim_status(&status, &larger), None);
}

#[test]
fn what_becomes_of_a_volume() {
    let check = |changes: Value, claim: Option<PersistentVolumeClaim>, expect: &str| {
        let found = match volume::step(&volume("v", changes.clone()), claim.as_ref()) {
            volume::Step::Nothing => "nothing".to_owned(),
            volume::Step::Phase(phase, None) => phase.to_owned(),
            volume::Step::Phase(phase, Some(own)) => format!("{phase}, {}", told(&own)),
            volume::Step::Mismatch { volume, claim } => format!("{} | {}", volume.message, claim.message),
            volume::Step::Unbind(changed) => {
                format!("unbind, {:?}", volume::claim_ref(&changed).map(|own| &own.uid))
            }
        };
        assert_eq!(found, expect, "{changes}");
    };
    let bound = |phase: &str, policy: &str| {
        json!({"spec": {"claimRef": {"namespace": "n", "name": "c", "uid": "u"}, "persistentVolumeReclaimPolicy": policy},
            "status": {"phase": phase}})
    };
    let with = |mut object: Value, changes: Value| {
        merge(&mut object, changes);
        object
    };
    check(json!({"status": {"phase": "Pending"}}), None, "Available");
    check(json!({}), None, "nothing");
    check(json!({"status": {"phase": ""}, "spec": {"claimRef": {"name": "c"}}}), None, "Available");
    let to = |name: &str| Some(claim(json!({"spec": {"volumeName": name}})));
    check(bound("Available", "Retain"), to("v"), "Bound");
    check(bound("Bound", "Retain"), to("v"), "nothing");
    check(bound("Available", "Retain"), Some(claim(json!({}))), "nothing");
    check(
        bound("Available", "Retain"),
        Some(claim(json!({"spec": {"volumeMode": "Block"}}))),
        "Cannot bind PersistentVolume to requested PersistentVolumeClaim \"c\" due to incompatible volumeMode. | Cannot \
         bind PersistentVolume \"v\" to requested PersistentVolumeClaim due to incompatible volumeMode.",
    );
    check(bound("Bound", "Retain"), None, "Released");
    check(bound("Released", "Retain"), None, "nothing");
    check(bound("Bound", "Delete"), None, "Released");
    check(
        bound("Released", "Delete"),
        None,
        "Failed, Warning VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no deletable volume \
         plugin matched",
    );
    check(bound("Failed", "Delete"), None, "nothing");
    let made_by =
        |name: &str| json!({"metadata": {"annotations": {"pv.kubernetes.io/provisioned-by": name}}});
    check(with(bound("Released", "Delete"), made_by("x.io/y")), None, "nothing");
    check(
        with(bound("Released", "Delete"), made_by("kubernetes.io/x")),
        None,
        "Failed, Warning VolumeFailedDelete: no volume plugin matched name: kubernetes.io/x",
    );
    check(
        bound("Released", "Recycle"),
        None,
        "Failed, Warning VolumeFailedRecycle: No recycler plugin found for the volume!",
    );
    check(with(bound("Bound", "Delete"), made_by("x.io/y")), to("w"), "Released");
    check(bound("Bound", "Retain"), to("w"), "unbind, Some(None)");
    let chosen = json!({"metadata": {"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}}});
    check(with(bound("Bound", "Retain"), chosen), to("w"), "unbind, None");
}
