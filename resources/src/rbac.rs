//! `rbac.authorization.k8s.io/v1`. Upstream: `pkg/registry/rbac`.

use crate::cells::{list, text};
use api::resource::{Column, Resource, Scope};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(crate) fn role() -> Resource {
    let mut resource = Resource::new(GROUP, "v1", "Role", "roles", Scope::Namespaced);
    resource.columns = crate::created_at();
    resource
}

pub(crate) fn cluster_role() -> Resource {
    let mut resource = Resource::new(GROUP, "v1", "ClusterRole", "clusterroles", Scope::Cluster);
    resource.columns = crate::created_at();
    resource
}

pub(crate) fn role_binding() -> Resource {
    Resource::new(GROUP, "v1", "RoleBinding", "rolebindings", Scope::Namespaced).columns(binding_columns())
}

pub(crate) fn cluster_role_binding() -> Resource {
    Resource::new(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", Scope::Cluster)
        .columns(binding_columns())
}

fn binding_columns() -> Vec<Column> {
    vec![
        Column::computed("Role", |o, _| {
            format!("{}/{}", text(o, "/roleRef/kind"), text(o, "/roleRef/name")).into()
        }),
        Column::age(),
        Column::computed("Users", |o, _| subjects(o, "User").into()).wide(),
        Column::computed("Groups", |o, _| subjects(o, "Group").into()).wide(),
        Column::computed("ServiceAccounts", |o, _| subjects(o, "ServiceAccount").into()).wide(),
    ]
}

fn subjects(binding: &Value, kind: &str) -> String {
    let names: Vec<_> = list(binding, "/subjects")
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "/namespace"), text(subject, "/name")),
            _ => text(subject, "/name").to_owned(),
        })
        .collect();
    names.join(", ")
}
