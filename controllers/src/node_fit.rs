//! Whether a pod may be on a node, as far as its selectors and the node's taints say. Pure.
//!
//! Upstream: component-helpers `scheduling/corev1`. (The scheduler has its own, faster form: components share no code.)

use api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use std::collections::BTreeMap;

/// What matters of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
}

/// Whether a toleration covers a taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key, value) = (of(&toleration.effect), of(&toleration.key), of(&toleration.value));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let own = taint.value.as_deref().unwrap_or_default();
    let numbers = || Some((own.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => value == own,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(own, bound)| own < bound),
        "Gt" => numbers().is_some_and(|(own, bound)| own > bound),
        _ => false,
    }
}

/// The first taint with one of these effects that nothing tolerates.
pub(crate) fn untolerated<'a>(
    taints: &'a [Taint],
    tolerations: &[Toleration],
    effects: &[&str],
) -> Option<&'a Taint> {
    taints.iter().find(|taint| {
        effects.contains(&taint.effect.as_str()) && !tolerations.iter().any(|own| tolerates(own, taint))
    })
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches(value)
}

fn term_matches(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |name: &str| (name == "metadata.name").then_some(node.name.as_str());
    // An empty term matches nothing.
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|own| matches(own, node.labels.get(&own.key).map(String::as_str)))
        && fields.iter().all(|own| matches(own, field(&own.key)))
}

/// Whether the node selector and the required node affinity of a pod allow a node.
pub(crate) fn is_selected(spec: &PodSpec, node: &NodeView) -> bool {
    let selector = spec.node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| node.labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|own| own.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_toleration_covers_by_key_value_and_effect() {
        let check = |toleration: Value, expect: bool| {
            let taint =
                serde_json::from_value(json!({"key": "k", "value": "5", "effect": "NoSchedule"})).unwrap();
            let toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&toleration, &taint), expect, "{toleration:?}");
        };
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"key": "x", "operator": "Exists"}), false);
        check(json!({"key": "k", "value": "5"}), true);
        check(json!({"key": "k", "value": "6"}), false);
        check(json!({"key": "k", "value": "5", "effect": "NoExecute"}), false);
        check(json!({"key": "k", "operator": "Lt", "value": "6"}), true);
        check(json!({"key": "k", "operator": "Gt", "value": "6"}), false);
    }

    #[test]
    fn selectors_and_affinity_must_both_hold() {
        let node = NodeView {
            name: "n".to_owned(),
            labels: BTreeMap::from([
                ("zone".to_owned(), "a".to_owned()),
                ("cores".to_owned(), "8".to_owned()),
            ]),
            taints: Vec::new(),
        };
        let check = |spec: Value, expect: bool| {
            let mut all = json!({"containers": []});
            spec.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
            assert_eq!(is_selected(&serde_json::from_value(all).unwrap(), &node), expect, "{spec}");
        };
        let affinity = |terms: Value| {
            json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
        };
        check(json!({}), true);
        check(json!({"nodeSelector": {"zone": "a"}}), true);
        check(json!({"nodeSelector": {"zone": "b"}}), false);
        check(affinity(json!([{}])), false);
        check(
            affinity(json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}])),
            true,
        );
        check(
            affinity(json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}])),
            false,
        );
        check(
            affinity(
                json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]),
            ),
            true,
        );
    }
}
