//! What types and fields mean, in upstream's words, from the descriptions that `k8s-openapi` carries.

use k8s_openapi::api as k;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as apiregistration;
use schemars::SchemaGenerator;
use serde_json::{Map, Value};

/// Schemas of all published types by name.
pub(super) struct Descriptions(Map<String, Value>);

/// Asks the generator for every kind; types that they use come along.
macro_rules! kinds {
    ($generator:ident: $($kind:ty),+ $(,)?) => { $( let _ = $generator.subschema_for::<$kind>(); )+ };
}

impl Descriptions {
    /// Collects them all: a few milliseconds.
    pub(super) fn collect() -> Self {
        let mut generator = SchemaGenerator::default();
        core(&mut generator);
        workloads(&mut generator);
        cluster(&mut generator);
        Self(generator.take_definitions(false))
    }

    pub(super) fn of_type(&self, type_name: &str) -> Option<&str> {
        self.0.get(type_name)?.get("description")?.as_str()
    }

    pub(super) fn of_field(&self, type_name: &str, field: &str) -> Option<&str> {
        self.0.get(type_name)?.get("properties")?.get(field)?.get("description")?.as_str()
    }
}

fn core(generator: &mut SchemaGenerator) {
    kinds!(generator:
        k::core::v1::Binding, k::core::v1::ComponentStatus, k::core::v1::ConfigMap, k::core::v1::Endpoints,
        k::core::v1::Event, k::core::v1::LimitRange, k::core::v1::Namespace, k::core::v1::Node,
        k::core::v1::PersistentVolume, k::core::v1::PersistentVolumeClaim, k::core::v1::Pod, k::core::v1::PodTemplate,
        k::core::v1::ReplicationController, k::core::v1::ResourceQuota, k::core::v1::Secret, k::core::v1::Service,
        k::core::v1::ServiceAccount, meta::DeleteOptions, meta::Status, meta::APIResourceList,
        meta::APIGroupList, meta::APIGroup, meta::APIVersions, meta::Patch,
    );
}

fn workloads(generator: &mut SchemaGenerator) {
    kinds!(generator:
        k::apps::v1::ControllerRevision, k::apps::v1::DaemonSet, k::apps::v1::Deployment, k::apps::v1::ReplicaSet,
        k::apps::v1::StatefulSet, k::autoscaling::v1::HorizontalPodAutoscaler, k::autoscaling::v1::Scale,
        k::autoscaling::v2::HorizontalPodAutoscaler, k::batch::v1::CronJob, k::batch::v1::Job,
        k::policy::v1::Eviction, k::policy::v1::PodDisruptionBudget, k::scheduling::v1::PriorityClass,
        k::networking::v1::Ingress, k::networking::v1::IngressClass, k::networking::v1::NetworkPolicy,
        k::networking::v1::IPAddress, k::networking::v1::ServiceCIDR, k::discovery::v1::EndpointSlice,
        k::events::v1::Event, k::coordination::v1::Lease, k::node::v1::RuntimeClass,
    );
}

fn cluster(generator: &mut SchemaGenerator) {
    kinds!(generator:
        k::rbac::v1::ClusterRole, k::rbac::v1::ClusterRoleBinding, k::rbac::v1::Role, k::rbac::v1::RoleBinding,
        k::authentication::v1::SelfSubjectReview, k::authentication::v1::TokenRequest,
        k::authentication::v1::TokenReview, k::authorization::v1::LocalSubjectAccessReview,
        k::authorization::v1::SelfSubjectAccessReview, k::authorization::v1::SelfSubjectRulesReview,
        k::authorization::v1::SubjectAccessReview, k::certificates::v1::CertificateSigningRequest,
        k::storage::v1::CSIDriver, k::storage::v1::CSINode, k::storage::v1::CSIStorageCapacity,
        k::storage::v1::StorageClass, k::storage::v1::VolumeAttachment, k::storage::v1::VolumeAttributesClass,
        k::flowcontrol::v1::FlowSchema, k::flowcontrol::v1::PriorityLevelConfiguration,
        k::admissionregistration::v1::MutatingWebhookConfiguration,
        k::admissionregistration::v1::ValidatingWebhookConfiguration,
        k::admissionregistration::v1::ValidatingAdmissionPolicy,
        k::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        k::resource::v1::DeviceClass, k::resource::v1::ResourceClaim, k::resource::v1::ResourceClaimTemplate,
        k::resource::v1::ResourceSlice, apiextensions::CustomResourceDefinition, apiregistration::APIService,
    );
}
