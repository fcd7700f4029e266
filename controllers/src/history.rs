//! The templates that a stateful or daemon set had: one ControllerRevision each. Upstream: pkg/controller/history.

use crate::owner::{self, Owner, Selects};
use crate::template::{Fnv, canonical, canonical_template, encode};
use api::LabelSelector;
use client::{Context, DeleteParams, Error};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

/// The longest part of an owner's name in the name of a revision.
const PREFIX_LEN_MAX: usize = 223;

/// The history of an owner, with a revision for its template.
pub(crate) struct History {
    /// Oldest first.
    pub(crate) revisions: Vec<ControllerRevision>,
    /// Names of those that are equal to the template; the last is the one in use.
    pub(crate) equal: Vec<String>,
    pub(crate) collision_count: i32,
}

impl History {
    /// The revision of the template.
    pub(crate) fn current(&self) -> &str {
        self.equal.last().map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&ControllerRevision> {
        self.revisions.iter().find(|own| own.metadata.name.as_deref() == Some(name))
    }

    /// Revisions that nobody uses beyond `limit`, oldest first.
    pub(crate) fn surplus(&self, is_used: impl Fn(&str) -> bool, limit: i32) -> Vec<&str> {
        let names = self.revisions.iter().filter_map(|own| own.metadata.name.as_deref());
        let unused: Vec<_> =
            names.filter(|name| !is_used(name) && !self.equal.iter().any(|own| own == name)).collect();
        let surplus = unused.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        unused.into_iter().take(surplus).collect()
    }
}

/// What must happen to have a revision for a template.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Keep,
    /// Give this one a new number.
    Renumber(usize, i64),
    Create(i64),
}

/// The template inside a revision, in canonical form.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.0.pointer("/spec/template")?.clone();
    if let Value::Object(map) = &mut template {
        map.remove("$patch");
    }
    serde_json::from_value(template).ok()
}

/// Positions of revisions equal to `template`, and what must happen. `revisions` are ordered. Pure.
pub(crate) fn step(revisions: &[ControllerRevision], template: &PodTemplateSpec) -> (Vec<usize>, Step) {
    let wanted = canonical_template(template);
    let is_equal = |own: &ControllerRevision| {
        template_of(own).is_some_and(|template| canonical_template(&template) == wanted)
    };
    let equal: Vec<_> = (0..revisions.len()).filter(|index| is_equal(&revisions[*index])).collect();
    let number = |own: &ControllerRevision| own.revision.unwrap_or(0);
    let others = revisions.iter().enumerate().filter(|(index, _)| !equal.contains(index));
    let next = others.map(|(_, own)| number(own)).max().unwrap_or(0) + 1;
    let step = match equal.last() {
        None => Step::Create(next),
        Some(last) if number(&revisions[*last]) < next => Step::Renumber(*last, next),
        Some(_) => Step::Keep,
    };
    (equal, step)
}

fn order(revisions: &mut [ControllerRevision]) {
    revisions.sort_by(|a, b| {
        let key = |own: &ControllerRevision| {
            let created = own.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (own.revision.unwrap_or(0), created, own.metadata.name.clone())
        };
        key(a).cmp(&key(b))
    });
}

fn hash(data: &Value, collision_count: i32) -> String {
    let mut hasher = Fnv::new();
    hasher.write(data.to_string().as_bytes());
    hasher.write(&collision_count.to_le_bytes());
    encode(&hasher.0.to_string())
}

/// A new revision. Its hash stands in the label `hash_label`.
fn new_revision(
    owner: &Owner,
    template: &PodTemplateSpec,
    hash_label: &str,
    number: i64,
    collision_count: i32,
) -> ControllerRevision {
    let mut inner = canonical(template);
    inner["$patch"] = "replace".into();
    let data = json!({"spec": {"template": inner}});
    let hash = hash(&data, collision_count);
    let mut labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(hash_label.to_owned(), hash.clone());
    let prefix = owner.key.name.get(..PREFIX_LEN_MAX).unwrap_or(&owner.key.name);
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: Some(owner.key.namespace.to_string()),
            labels: Some(labels),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: RawExtension(data),
        revision: Some(number),
    }
}

/// Makes sure that there is a revision for `template`, and that it has the highest number.
///
/// # Errors
/// The API server refused a write.
pub(crate) async fn sync<K: Selects>(
    context: &Context,
    owner: &Owner,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    hash_label: &str,
    collision_count: i32,
) -> Result<History, Error> {
    let mut revisions = owner::claim::<K, ControllerRevision>(context, owner, selector, |_| true).await?;
    order(&mut revisions);
    let api = context.client.namespaced::<ControllerRevision>(&owner.key.namespace);
    let expect = |revision: &ControllerRevision| {
        let version = revision.metadata.resource_version.as_deref();
        context.expectations.wrote(&owner.key, &context.caches.of::<ControllerRevision>(), version);
    };
    let mut collision_count = collision_count;
    match step(&revisions, template).1 {
        Step::Keep => {}
        Step::Renumber(index, number) => {
            revisions[index].revision = Some(number);
            revisions[index] = api.replace(&revisions[index]).await?;
            expect(&revisions[index]);
        }
        Step::Create(number) => loop {
            let wanted = new_revision(owner, template, hash_label, number, collision_count);
            match api.create(&wanted).await {
                Ok(made) => {
                    expect(&made);
                    revisions.push(made);
                    break;
                }
                Err(status) if status.is_already_exists() => {
                    let taken = api.get(wanted.metadata.name.as_deref().unwrap_or_default()).await?;
                    let is_ours = owner::controller_uid(&taken.metadata) == Some(&owner.uid);
                    if is_ours && canonical(&taken.data.0) == canonical(&wanted.data.0) {
                        expect(&taken);
                        revisions.push(taken);
                        break;
                    }
                    collision_count += 1;
                }
                Err(status) => return Err(status.into()),
            }
        },
    }
    order(&mut revisions);
    let equal = step(&revisions, template).0;
    let names = equal.into_iter().filter_map(|index| revisions[index].metadata.name.clone()).collect();
    Ok(History { revisions, equal: names, collision_count })
}

/// Deletes revisions.
///
/// # Errors
/// The API server refused one.
pub(crate) async fn delete(context: &Context, owner: &Owner, names: &[&str]) -> Result<(), Error> {
    let api = context.client.namespaced::<ControllerRevision>(&owner.key.namespace);
    for name in names {
        match api.delete(name, &DeleteParams::default()).await {
            Err(status) if !status.is_not_found() => return Err(status.into()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
    }

    fn revision(image: &str, number: i64) -> ControllerRevision {
        let owner: k8s_openapi::api::apps::v1::StatefulSet =
            serde_json::from_value(json!({"metadata": {"name": "s"}})).unwrap();
        new_revision(&Owner::of(&owner), &template(image), "hash", number, 0)
    }

    #[test]
    fn a_template_has_one_revision_with_the_highest_number() {
        let check = |revisions: &[(&str, i64)], expect: Step| {
            let revisions: Vec<_> =
                revisions.iter().map(|(image, number)| revision(image, *number)).collect();
            assert_eq!(step(&revisions, &template("x")).1, expect);
        };
        check(&[], Step::Create(1));
        check(&[("a", 1), ("b", 4)], Step::Create(5));
        check(&[("a", 1), ("x", 2)], Step::Keep);
        check(&[("x", 1), ("a", 2)], Step::Renumber(0, 3));
        check(&[("x", 1), ("x", 7), ("a", 2)], Step::Keep);
    }

    #[test]
    fn a_revision_gives_its_template_back_and_names_itself_by_it() {
        let made = revision("x", 1);
        assert_eq!(template_of(&made), Some(template("x")));
        assert_eq!(made.data.0["spec"]["template"]["$patch"], "replace");
        assert_eq!(made.metadata.name, revision("x", 2).metadata.name);
        assert_ne!(made.metadata.name, revision("y", 1).metadata.name);
    }

    #[test]
    fn unused_revisions_beyond_the_limit_are_surplus() {
        let revisions = vec![revision("a", 1), revision("b", 2), revision("c", 3), revision("x", 4)];
        let names: Vec<_> = revisions.iter().map(|own| own.metadata.name.clone().unwrap()).collect();
        let history = History { revisions, equal: vec![names[3].clone()], collision_count: 0 };
        assert_eq!(history.surplus(|_| false, 1), [&names[0], &names[1]]);
        assert_eq!(history.surplus(|name| name == names[0], 1), [&names[1]]);
        assert!(history.surplus(|_| false, 3).is_empty());
    }
}
