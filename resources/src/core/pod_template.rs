//! `PodTemplate`. Upstream: `pkg/registry/core/podtemplate`.

use crate::cells::{joined, labels};
use crate::pod_spec::{default_template, template_warnings, validate_template};
use crate::workload;
use api::resource::{Column, Resource, Scope};
use api::strategy::Typed;
use api::{Context, FieldErrors, Status, Strategy};
use k8s_openapi::api::core::v1::PodTemplate;

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "PodTemplate", "podtemplates", Scope::Namespaced)
        .columns(vec![
            Column::computed("Containers", |o, _| joined(o, "/template/spec/containers", "name").into()),
            Column::computed("Images", |o, _| joined(o, "/template/spec/containers", "image").into()),
            Column::computed("Pod Labels", |o, _| labels(o, "/template/metadata/labels").into()),
        ])
        .generation()
        .rules(Typed(Rules))
}

struct Rules;

impl Strategy for Rules {
    type Kind = PodTemplate;

    fn returns_deleted(&self) -> bool {
        true
    }

    fn default(&self, own: &mut PodTemplate) {
        default_template(own.template.get_or_insert_default());
    }

    fn prepare_create(&self, own: &mut PodTemplate, _: &Context<'_>) -> Result<(), Status> {
        own.metadata.generation = Some(1);
        workload::drop_disabled(own.template.get_or_insert_default());
        Ok(())
    }

    fn prepare_update(&self, new: &mut PodTemplate, _: &PodTemplate, _: &Context<'_>) -> Result<(), Status> {
        workload::drop_disabled(new.template.get_or_insert_default());
        Ok(())
    }

    fn validate(&self, own: &PodTemplate, errors: &mut FieldErrors) {
        if let Some(template) = &own.template {
            errors.at("template", |errors| validate_template(template, errors));
        }
    }

    fn warnings(&self, own: &PodTemplate) -> Vec<String> {
        template_warnings("template", own.template.as_ref())
    }
}
