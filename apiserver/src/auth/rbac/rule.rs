//! One rule of a role: what it allows, and whether it covers another one. Pure.
//! Upstream: `pkg/apis/rbac/v1/evaluation_helpers.go` and `component-helpers/auth/rbac/validation`.

use crate::hooks::Attributes;
use k8s_openapi::api::rbac::v1::PolicyRule;
use std::collections::{BTreeMap, BTreeSet};

/// A rule with plain lists, as small as an index over thousands of bindings wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs, `*` for all.
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    pub groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Empty for every name.
    pub names: Vec<String>,
    /// Paths, with a `*` at the end for everything below.
    pub paths: Vec<String>,
}

impl From<PolicyRule> for Rule {
    fn from(rule: PolicyRule) -> Self {
        Self {
            verbs: rule.verbs,
            groups: rule.api_groups.unwrap_or_default(),
            resources: rule.resources.unwrap_or_default(),
            names: rule.resource_names.unwrap_or_default(),
            paths: rule.non_resource_urls.unwrap_or_default(),
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == wanted)
}

fn has_or_star(list: &[String], wanted: &str) -> bool {
    list.iter().any(|own| own == "*" || own == wanted)
}

impl Rule {
    /// A rule over resources.
    pub fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Self {
        Self { verbs: owned(verbs), groups: owned(groups), resources: owned(resources), ..Self::default() }
    }

    /// A rule over paths.
    pub fn paths(verbs: &[&str], paths: &[&str]) -> Self {
        Self { verbs: owned(verbs), paths: owned(paths), ..Self::default() }
    }

    /// Whether it allows what is asked.
    pub fn allows(&self, asked: &Attributes<'_>) -> bool {
        if !has_or_star(&self.verbs, asked.verb) {
            return false;
        }
        if !asked.is_resource {
            return self.paths.iter().any(|own| path_matches(own, asked.path));
        }
        has_or_star(&self.groups, asked.group)
            && self.resources.iter().any(|own| resource_matches(own, asked.resource, asked.subresource))
            && (self.names.is_empty() || has(&self.names, asked.name))
    }

    /// The same rule as many that have one verb, one group, one resource and at most one name each.
    fn atoms(&self) -> Vec<Self> {
        let mut atoms = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for (group, resource, verb) in self.groups.iter().flat_map(|group| {
            let pairs = move |resource| self.verbs.iter().map(move |verb| (group, resource, verb));
            self.resources.iter().flat_map(pairs)
        }) {
            let base =
                Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
            match self.names.as_slice() {
                [] => atoms.push(base),
                names => {
                    atoms.extend(names.iter().map(|name| Self { names: one(name), ..base.clone() }));
                }
            }
        }
        for path in &self.paths {
            let atom = |verb: &String| Self { verbs: one(verb), paths: one(path), ..Self::default() };
            atoms.extend(self.verbs.iter().map(atom));
        }
        atoms
    }

    /// Whether it allows everything that an atom allows.
    fn covers(&self, atom: &Self) -> bool {
        let all_or_star =
            |own: &[String], wanted: &[String]| has(own, "*") || wanted.iter().all(|wanted| has(own, wanted));
        let resource = |wanted: &String| match wanted.split_once('/') {
            _ if has_or_star(&self.resources, wanted) => true,
            Some((_, subresource)) => has(&self.resources, &format!("*/{subresource}")),
            None => false,
        };
        let names = match atom.names.is_empty() {
            true => self.names.is_empty(),
            false => self.names.is_empty() || atom.names.iter().all(|name| has(&self.names, name)),
        };
        names
            && all_or_star(&self.verbs, &atom.verbs)
            && all_or_star(&self.groups, &atom.groups)
            && atom.resources.iter().all(resource)
            && atom.paths.iter().all(|wanted| self.paths.iter().any(|own| path_covers(own, wanted)))
    }

    /// Upstream's compact text, such as `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let texts: Vec<_> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| {
                let quoted: Vec<_> = list.iter().map(|text| format!("\"{text}\"")).collect();
                format!("{name}:[{}]", quoted.join(" "))
            })
            .collect();
        format!("{{{}}}", texts.join(", "))
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn resource_matches(own: &str, resource: &str, subresource: &str) -> bool {
    if own == "*" {
        return true;
    }
    if subresource.is_empty() {
        return own == resource;
    }
    own.split_once('/').is_some_and(|(left, right)| right == subresource && (left == "*" || left == resource))
}

fn path_matches(own: &str, asked: &str) -> bool {
    own == "*" || path_covers(own, asked)
}

fn path_covers(own: &str, asked: &str) -> bool {
    own == asked || (own.ends_with('*') && asked.starts_with(own.trim_end_matches('*')))
}

/// The atoms of `wanted` that no rule of `held` covers.
pub fn uncovered<'a>(held: impl Iterator<Item = &'a Rule> + Clone, wanted: &[Rule]) -> Vec<Rule> {
    let atoms = wanted.iter().flat_map(Rule::atoms);
    atoms.filter(|atom| !held.clone().any(|own| own.covers(atom))).collect()
}

/// Joins atoms that differ in nothing but their verb, and names them in upstream's order.
pub fn describe(missing: &[Rule]) -> Vec<String> {
    /// Groups, resources and names of rules that differ in nothing but their verb.
    type Same<'a> = (&'a [String], &'a [String], &'a [String]);
    let mut joined: BTreeMap<Same<'_>, Vec<String>> = BTreeMap::new();
    let mut texts: BTreeSet<String> = BTreeSet::new();
    for rule in missing {
        match rule.paths.is_empty() {
            true => {
                let key = (rule.groups.as_slice(), rule.resources.as_slice(), rule.names.as_slice());
                joined.entry(key).or_default().extend(rule.verbs.iter().cloned());
            }
            false => {
                texts.insert(rule.compact());
            }
        }
    }
    for ((groups, resources, names), verbs) in joined {
        let rule = Rule {
            verbs,
            groups: groups.to_vec(),
            resources: resources.to_vec(),
            names: names.to_vec(),
            paths: Vec::new(),
        };
        texts.insert(rule.compact());
    }
    texts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::asked;

    fn check(rule: &Rule, request: &str, expect: bool) {
        let user = api::UserInfo::default();
        assert_eq!(rule.allows(&asked(&user, request)), expect, "{rule:?} {request}");
    }

    #[test]
    fn what_a_rule_allows() {
        let pods = Rule::resources(&["get", "list"], &[""], &["pods", "pods/log"]);
        check(&pods, "get  pods ns a", true);
        check(&pods, "watch  pods ns a", false);
        check(&pods, "get  pods/log ns a", true);
        check(&pods, "get  pods/exec ns a", false);
        check(&pods, "get apps pods ns a", false);
        check(&pods, "get /pods", false);
        let named = Rule { names: vec!["a".to_owned()], ..pods };
        check(&named, "get  pods ns a", true);
        check(&named, "get  pods ns b", false);
        check(&named, "list  pods ns -", false);
        let scale = Rule::resources(&["*"], &["*"], &["*/scale"]);
        check(&scale, "update apps deployments/scale ns a", true);
        check(&scale, "update apps deployments ns a", false);
        let all = Rule::resources(&["*"], &["*"], &["*"]);
        check(&all, "delete apps deployments/status ns a", true);
        check(&all, "get /metrics", false);
        let paths = Rule::paths(&["get"], &["/healthz", "/api/*"]);
        check(&paths, "get /healthz", true);
        check(&paths, "get /healthz/etcd", false);
        check(&paths, "get /api/v1", true);
        check(&paths, "post /api/v1", false);
        check(&Rule::paths(&["*"], &["*"]), "put /anything", true);
    }

    #[test]
    fn what_covers_what() {
        let held = [
            Rule::resources(&["get", "list"], &["", "apps"], &["pods", "*/scale"]),
            Rule::resources(&["*"], &["batch"], &["*"]),
            Rule::paths(&["get"], &["/logs/*"]),
        ];
        let missing = |rule: Rule| describe(&uncovered(held.iter(), &[rule]));
        let none: [&str; 0] = [];
        assert_eq!(missing(Rule::resources(&["get"], &[""], &["pods"])), none);
        assert_eq!(missing(Rule::resources(&["get"], &["apps"], &["deployments/scale"])), none);
        assert_eq!(missing(Rule::resources(&["*"], &["batch"], &["jobs"])), none);
        assert_eq!(missing(Rule::paths(&["get"], &["/logs/a"])), none);
        assert_eq!(
            missing(Rule::resources(&["get", "delete", "patch"], &[""], &["pods"])),
            [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "patch"]}"#]
        );
        assert_eq!(
            missing(Rule::paths(&["get", "put"], &["/logs"])),
            [
                r#"{NonResourceURLs:["/logs"], Verbs:["get"]}"#,
                r#"{NonResourceURLs:["/logs"], Verbs:["put"]}"#
            ]
        );
    }
}
