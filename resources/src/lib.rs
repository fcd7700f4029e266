//! The built-in resources of Kubernetes v1.37 as data: one row each with its columns, selectable fields, subresources
//! and rules (defaults, validation, immutability), the kind-aware admission plugins, and the objects of a fresh cluster.
//!
//! Pure: no I/O, no clock, no tokio. Other objects come in as an [`api::Lookup`], the time as an argument. Start at
//! [`all`], the table. Each kind with rules has a file of its own named after it; kinds whose schema says all there is
//! to say are rows in `thin.rs` or in their group's file.

pub mod admission;
mod admissionregistration;
mod api_service;
mod apps;
mod autoscaling;
mod batch;
pub mod bootstrap;
mod cells;
mod certificates;
mod coordination;
pub mod core;
mod custom_resource_definition;
mod discovery;
mod equal;
pub mod knative;
mod networking;
mod node_group;
mod pod_spec;
mod policy;
mod rbac;
mod scheduling;
mod storage;
#[cfg(test)]
mod testing;
mod thin;
mod webhook_client;
mod webhook_configuration;
mod workload;

use api::resource::{Column, Field, Resource, Verbs};
use serde_json::Value;

/// What a proxy subresource serves.
const VERBS_PROXY: Verbs = &["create", "delete", "get", "patch", "update"];
/// What a streaming subresource serves.
const VERBS_STREAM: Verbs = &["create", "get"];

/// Every built-in resource in the groups and versions that upstream serves by default.
/// Upstream: `DefaultAPIResourceConfigSource` in `pkg/controlplane/instance.go`, `api/discovery`.
pub fn all() -> Vec<Resource> {
    let mut all = vec![
        core::binding(),
        core::component_status(),
        core::config_map::resource(),
        core::endpoints::resource(),
        core::event::resource(),
        core::limit_range::resource(),
        core::namespace::resource(),
        core::node::resource(),
        core::persistent_volume_claim::resource(),
        core::persistent_volume::resource(),
        core::pod::resource(),
        core::pod_template::resource(),
        core::replication_controller::resource(),
        core::resource_quota::resource(),
        core::secret::resource(),
        core::service_account::resource(),
        core::service::resource(),
        core::event::events_k8s_io(),
        apps::controller_revision::resource(),
        apps::daemon_set::resource(),
        apps::deployment::resource(),
        apps::replica_set::resource(),
        apps::stateful_set::resource(),
        autoscaling::v2(),
        autoscaling::v1(),
        batch::cron_job::resource(),
        batch::job::resource(),
        certificates::certificate_signing_request(),
        certificates::cluster_trust_bundle(),
        certificates::pod_certificate_request(),
        networking::ingress_class(),
        networking::ingress(),
        networking::ip_address(),
        networking::network_policy(),
        networking::service_cidr(),
        policy::pod_disruption_budget(),
        rbac::cluster_role_binding(),
        rbac::cluster_role(),
        rbac::role_binding(),
        rbac::role(),
        storage::csi_driver(),
        storage::csi_node(),
        storage::csi_storage_capacity(),
        storage::storage_class(),
        storage::volume_attachment(),
        storage::volume_attributes_class(),
        admissionregistration::mutating_admission_policy(),
        admissionregistration::mutating_admission_policy_binding(),
        admissionregistration::mutating_webhook_configuration(),
        admissionregistration::validating_admission_policy(),
        admissionregistration::validating_admission_policy_binding(),
        admissionregistration::validating_webhook_configuration(),
        scheduling::priority_class(),
        coordination::lease(),
        node_group::runtime_class(),
        discovery::endpoint_slice(),
        thin::storage_version_migration(),
    ];
    all.extend(thin::flowcontrol());
    all.extend(thin::authentication());
    all.extend(thin::authorization());
    all.push(custom_resource_definition::row());
    all.push(api_service::row());
    all.extend(thin::dynamic_resources());
    all
}

/// Everything that a cluster of ours serves: Kubernetes and Knative.
pub fn table() -> Vec<Resource> {
    let mut table = all();
    table.extend(knative::rows());
    table
}

/// The only column of kinds for which upstream has no table: when it was created, in full.
fn created_at() -> Vec<Column> {
    vec![Column::new("Created At", "/metadata/creationTimestamp")]
}

/// `name`, which a few old kinds accept in field selectors besides `metadata.name`.
fn legacy_name_field() -> Field {
    Field::at("name", "/metadata/name")
}

/// The phase, or `Terminating` for what is being deleted.
fn phase_or_terminating(object: &Value) -> Value {
    match cells::text(object, "/metadata/deletionTimestamp") {
        "" => cells::text(object, "/status/phase").into(),
        _ => "Terminating".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_is_served_once() {
        let mut seen = BTreeSet::new();
        for row in table() {
            assert!(seen.insert((row.api_version(), row.plural.clone())), "{row:?} twice");
            assert_eq!(row.list_kind, format!("{}List", row.kind));
            let mut names = BTreeSet::new();
            for part in &row.subresources {
                assert!(names.insert(part.name), "{row:?}/{} twice", part.name);
            }
            assert_eq!(row.has_status, names.contains("status"), "{row:?}");
        }
    }

    /// One line per resource and subresource, as `testdata/served.txt` has it.
    fn served() -> BTreeSet<String> {
        let none = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        let mut lines = BTreeSet::new();
        for row in all() {
            let (version, scope) = (row.api_version(), if row.is_namespaced() { "N" } else { "C" });
            lines.insert(format!(
                "{version} {} {} {} {scope} {} {} {}",
                row.plural,
                row.kind,
                row.singular,
                row.verbs.join(","),
                none(&row.short_names),
                none(&row.categories)
            ));
            for part in &row.subresources {
                let body = match part.body {
                    None => row.kind.clone(),
                    Some((group, version, kind)) if (group, version) == (&*row.group, &*row.version) => {
                        kind.to_owned()
                    }
                    Some((group, version, kind)) => format!("{group}/{version}.{kind}"),
                };
                let (plural, verbs) = (&row.plural, part.verbs.join(","));
                lines.insert(format!("{version} {plural}/{} {body} - {scope} {verbs} - -", part.name));
            }
        }
        lines
    }

    #[test]
    fn served_is_what_upstream_serves_by_default() {
        let upstream: BTreeSet<String> =
            include_str!("testdata/served.txt").lines().map(str::to_owned).collect();
        let ours = served();
        let missing: Vec<_> = upstream.difference(&ours).collect();
        let more: Vec<_> = ours.difference(&upstream).collect();
        assert!(missing.is_empty() && more.is_empty(), "missing: {missing:#?}\nmore: {more:#?}");
    }
}
