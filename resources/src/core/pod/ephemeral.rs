//! `pods/ephemeralcontainers`: adds containers to a running pod. Upstream: `podEphemeralContainersStrategy`.

use super::{count_change, default, update};
use crate::equal::{keep_metadata, same};
use crate::pod_spec;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::Pod;

pub(super) struct Rules;

impl Strategy for Rules {
    type Kind = Pod;

    fn default(&self, pod: &mut Pod) {
        default(pod);
    }

    fn prepare_update(&self, new: &mut Pod, old: &Pod, _: &Context<'_>) -> Result<(), Status> {
        let asked = new.spec.as_mut().and_then(|spec| spec.ephemeral_containers.take());
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
        keep_metadata(&mut new.metadata, &old.metadata);
        let spec = new.spec.get_or_insert_default();
        spec.ephemeral_containers = asked;
        pod_spec::drop_disabled(spec);
        count_change(new, old);
        Ok(())
    }

    fn validate(&self, pod: &Pod, errors: &mut FieldErrors) {
        super::validate(pod, errors);
    }

    fn validate_update(&self, new: &Pod, old: &Pod, errors: &mut FieldErrors) {
        const FIELD: &str = "spec.ephemeralContainers";
        update::check_annotations(&new.metadata, &old.metadata, errors);
        if old
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| all.contains_key("kubernetes.io/config.mirror"))
        {
            return errors.forbidden("", "static pods do not support ephemeral containers");
        }
        let list = |pod: &Pod| {
            pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default()
        };
        let new = list(new);
        for before in list(old) {
            let name = &before.name;
            match new.iter().find(|own| own.name == *name) {
                None => errors.forbidden(
                    FIELD,
                    format!("existing ephemeral containers \"{name}\" may not be removed\n"),
                ),
                Some(own) if !same(own, &before) => errors.forbidden(
                    FIELD,
                    format!("existing ephemeral containers \"{name}\" may not be changed\n"),
                ),
                Some(_) => {}
            }
        }
    }
}
