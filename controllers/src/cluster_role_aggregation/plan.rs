//! The rules of a role that is put together from others. Pure.

use api::Object;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// Whether a role is put together from others, decoded without the rest.
pub(super) fn is_aggregated(role: &Object) -> bool {
    #[derive(Deserialize)]
    struct Narrow {
        #[serde(default, rename = "aggregationRule")]
        aggregation_rule: Option<IgnoredAny>,
    }
    role.decode::<Narrow>().is_ok_and(|narrow| narrow.aggregation_rule.is_some())
}

/// All rules of the parts, each once, in the order of the parts.
pub(super) fn rules(parts: &[ClusterRole]) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.iter().flat_map(|part| part.rules.iter().flatten()).map(normal) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Whether two lists of rules say the same. A list without items says the same as none.
pub(super) fn is_same(one: &[PolicyRule], other: &[PolicyRule]) -> bool {
    one.iter().map(normal).eq(other.iter().map(normal))
}

fn normal(rule: &PolicyRule) -> PolicyRule {
    let some = |list: &Option<Vec<String>>| list.clone().filter(|list| !list.is_empty());
    PolicyRule {
        api_groups: some(&rule.api_groups),
        non_resource_urls: some(&rule.non_resource_urls),
        resource_names: some(&rule.resource_names),
        resources: some(&rule.resources),
        verbs: rule.verbs.clone(),
    }
}
