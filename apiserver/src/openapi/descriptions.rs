//! What fields are for, in upstream's words: k8s-openapi carries them (`kubectl explain` shows them).
//!
//! They are asked for type by type while a document is made, and forgotten with it.

use ::api::schema::Schema;
use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema as JsonSchemaOf};
use std::collections::HashMap;

/// A type by its published name, and what adds it and all it refers to.
type Root = (fn() -> std::borrow::Cow<'static, str>, fn(&mut SchemaGenerator) -> JsonSchemaOf);

macro_rules! roots {
    ($($kind:ty,)*) => {
        &[$((<$kind as JsonSchema>::schema_name, SchemaGenerator::subschema_for::<$kind>)),*]
    };
}

/// Every kind of a published version. Lists are not here: they all read the same.
const ROOTS: &[Root] = roots![
    api::admissionregistration::v1::MutatingAdmissionPolicy,
    api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    api::admissionregistration::v1::ValidatingAdmissionPolicy,
    api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    api::admissionregistration::v1::ValidatingWebhookConfiguration,
    api::apps::v1::ControllerRevision,
    api::apps::v1::DaemonSet,
    api::apps::v1::Deployment,
    api::apps::v1::ReplicaSet,
    api::apps::v1::StatefulSet,
    api::authentication::v1::SelfSubjectReview,
    api::authentication::v1::TokenRequest,
    api::authentication::v1::TokenReview,
    api::authorization::v1::LocalSubjectAccessReview,
    api::authorization::v1::SelfSubjectAccessReview,
    api::authorization::v1::SelfSubjectRulesReview,
    api::authorization::v1::SubjectAccessReview,
    api::autoscaling::v1::HorizontalPodAutoscaler,
    api::autoscaling::v1::Scale,
    api::autoscaling::v2::HorizontalPodAutoscaler,
    api::batch::v1::CronJob,
    api::batch::v1::Job,
    api::certificates::v1::CertificateSigningRequest,
    api::certificates::v1::ClusterTrustBundle,
    api::certificates::v1::PodCertificateRequest,
    api::coordination::v1::Lease,
    api::core::v1::Binding,
    api::core::v1::ComponentStatus,
    api::core::v1::ConfigMap,
    api::core::v1::Endpoints,
    api::core::v1::Event,
    api::core::v1::LimitRange,
    api::core::v1::Namespace,
    api::core::v1::Node,
    api::core::v1::PersistentVolume,
    api::core::v1::PersistentVolumeClaim,
    api::core::v1::Pod,
    api::core::v1::PodTemplate,
    api::core::v1::ReplicationController,
    api::core::v1::ResourceQuota,
    api::core::v1::Secret,
    api::core::v1::Service,
    api::core::v1::ServiceAccount,
    api::discovery::v1::EndpointSlice,
    api::events::v1::Event,
    api::flowcontrol::v1::FlowSchema,
    api::flowcontrol::v1::PriorityLevelConfiguration,
    api::networking::v1::IPAddress,
    api::networking::v1::Ingress,
    api::networking::v1::IngressClass,
    api::networking::v1::NetworkPolicy,
    api::networking::v1::ServiceCIDR,
    api::node::v1::RuntimeClass,
    api::policy::v1::Eviction,
    api::policy::v1::PodDisruptionBudget,
    api::rbac::v1::ClusterRole,
    api::rbac::v1::ClusterRoleBinding,
    api::rbac::v1::Role,
    api::rbac::v1::RoleBinding,
    api::resource::v1::DeviceClass,
    api::resource::v1::DeviceTaintRule,
    api::resource::v1::ResourceClaim,
    api::resource::v1::ResourceClaimTemplate,
    api::resource::v1::ResourceSlice,
    api::scheduling::v1::PriorityClass,
    api::storage::v1::CSIDriver,
    api::storage::v1::CSINode,
    api::storage::v1::CSIStorageCapacity,
    api::storage::v1::StorageClass,
    api::storage::v1::VolumeAttachment,
    api::storage::v1::VolumeAttributesClass,
    api::storagemigration::v1::StorageVersionMigration,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
    apimachinery::pkg::apis::meta::v1::Status,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    apimachinery::pkg::apis::meta::v1::ListMeta,
];

/// Descriptions of the types that were asked for.
pub(super) struct Descriptions {
    roots: HashMap<std::borrow::Cow<'static, str>, &'static Root>,
    generator: SchemaGenerator,
}

impl Descriptions {
    pub(super) fn new() -> Self {
        let mut settings = SchemaSettings::openapi3();
        settings.definitions_path = "/definitions".into();
        let roots = ROOTS.iter().map(|root| ((root.0)(), root)).collect();
        Self { roots, generator: settings.into_generator() }
    }

    /// Makes the descriptions of a kind, and of every type it refers to, known.
    pub(super) fn add(&mut self, root: &str) {
        if let Some((_, add)) = self.roots.get(root) {
            add(&mut self.generator);
        }
    }

    /// What a type is for.
    pub(super) fn of_type(&self, name: &str) -> Option<String> {
        if let Some(text) = self.generator.definitions().get(name)?.get("description") {
            return text.as_str().map(str::to_owned);
        }
        None
    }

    /// What a field is for.
    pub(super) fn of_field(&self, type_name: &str, field: &str) -> Option<String> {
        let definition = self.generator.definitions().get(type_name)?;
        let property = definition.get("properties")?.get(field)?;
        // A reference with a description is wrapped.
        let text = property.get("description").or_else(|| property.pointer("/allOf/0/description"));
        text?.as_str().map(str::to_owned)
    }
}

/// What the fields of every list are for.
pub(super) fn of_list(field: &str, kind: &str) -> Option<String> {
    match field {
        "items" => Some(format!("The objects of kind {kind}.")),
        "metadata" => Some("Standard list metadata.".to_owned()),
        "kind" => Some("The kind of the list, in CamelCase.".to_owned()),
        "apiVersion" => Some("The version of the schema that the list follows.".to_owned()),
        _ => None,
    }
}

/// What a list is, where a type is one.
pub(super) fn list_of(schema: &Schema, name: &str) -> Option<String> {
    let kind = name.rsplit('.').next()?.strip_suffix("List")?;
    let id = schema.named(name)?;
    schema.field(id, "items").map(|_| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_described_alone() {
        let mut descriptions = Descriptions::new();
        let name = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        descriptions.add(name);
        let text = descriptions.of_field(name, "creationTimestamp").unwrap_or_default();
        assert!(text.starts_with("CreationTimestamp is a timestamp"), "{text}");
    }

    #[test]
    fn fields_are_described() {
        let mut descriptions = Descriptions::new();
        descriptions.add("io.k8s.api.core.v1.Pod");
        let check = |name: &str, field: &str, expect: &str| {
            let text = descriptions.of_field(name, field).unwrap_or_default();
            assert!(text.contains(expect), "{name} {field}: {text}");
        };
        check("io.k8s.api.core.v1.PodSpec", "nodeName", "node");
        check("io.k8s.api.core.v1.Pod", "spec", "Specification of the desired behavior of the pod");
        check("io.k8s.api.core.v1.Container", "image", "Container image name");
        assert!(descriptions.of_type("io.k8s.api.core.v1.Volume").is_some());
        assert!(descriptions.of_type("io.k8s.api.apps.v1.Deployment").is_none());
    }
}
