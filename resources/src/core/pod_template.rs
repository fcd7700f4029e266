//! `PodTemplate`. Upstream: `pkg/registry/core/podtemplate`.

use crate::cells::{joined, labels};
use api::resource::{Column, Resource, Scope};

pub(crate) fn resource() -> Resource {
    Resource::new("", "v1", "PodTemplate", "podtemplates", Scope::Namespaced)
        .columns(vec![
            Column::computed("Containers", |o, _| joined(o, "/template/spec/containers", "name").into()),
            Column::computed("Images", |o, _| joined(o, "/template/spec/containers", "image").into()),
            Column::computed("Pod Labels", |o, _| labels(o, "/template/metadata/labels").into()),
        ])
        .generation()
}
