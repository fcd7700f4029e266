//! Sets of fields, as trees. Upstream: structured-merge-diff `fieldpath.Set`.

use super::element::Element;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// How deep `FieldsV1` may nest: as deep as any object.
const DEPTH_MAX: usize = crate::decode::DEPTH_MAX;

/// A set of fields. A field that has fields of its own need not be a member itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Members directly below, sorted.
    members: Vec<Element>,
    /// What is further below, sorted; no set in it is empty.
    children: Vec<(Element, Set)>,
}

/// Walks two sorted lists side by side.
fn zip<'a, A, B>(
    left: &'a [A],
    right: &'a [B],
    order: impl Fn(&A, &B) -> Ordering,
    mut visit: impl FnMut(Option<&'a A>, Option<&'a B>),
) {
    let (mut left, mut right) = (left, right);
    loop {
        match (left.split_first(), right.split_first()) {
            (None, None) => return,
            (Some((one, rest)), None) => {
                visit(Some(one), None);
                left = rest;
            }
            (None, Some((two, rest))) => {
                visit(None, Some(two));
                right = rest;
            }
            (Some((one, left_rest)), Some((two, right_rest))) => match order(one, two) {
                Ordering::Less => {
                    visit(Some(one), None);
                    left = left_rest;
                }
                Ordering::Greater => {
                    visit(None, Some(two));
                    right = right_rest;
                }
                Ordering::Equal => {
                    visit(Some(one), Some(two));
                    (left, right) = (left_rest, right_rest);
                }
            },
        }
    }
}

fn by_element(left: &(Element, Set), right: &(Element, Set)) -> Ordering {
    left.0.cmp(&right.0)
}

impl Set {
    /// The set of these paths of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Adds one field. The empty path is the whole object, which nobody owns.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for step in parents {
            let index = match set.children.binary_search_by(|(own, _)| own.cmp(step)) {
                Ok(index) => index,
                Err(index) => {
                    set.children.insert(index, (step.clone(), Self::default()));
                    index
                }
            };
            set = &mut set.children[index].1;
        }
        if let Err(index) = set.members.binary_search(last) {
            set.members.insert(index, last.clone());
        }
    }

    /// Adds a step with what is below it. Steps may come in any order, but each only once.
    pub(super) fn push(&mut self, step: Element, is_member: bool, below: Self) {
        if !below.is_empty() {
            match self.children.last() {
                Some((last, _)) if *last >= step => {
                    let index = self.children.partition_point(|(own, _)| *own < step);
                    self.children.insert(index, (step.clone(), below));
                }
                _ => self.children.push((step.clone(), below)),
            }
        }
        if is_member {
            self.push_member(step);
        }
    }

    /// Adds a member directly below.
    pub(super) fn push_member(&mut self, step: Element) {
        match self.members.last() {
            Some(last) if *last >= step => {
                if let Err(index) = self.members.binary_search(&step) {
                    self.members.insert(index, step);
                }
            }
            _ => self.members.push(step),
        }
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, set)| set.is_empty())
    }

    /// Whether this field is a member.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [step, rest @ ..] => self.below(step).is_some_and(|set| set.has(rest)),
        }
    }

    /// Whether this step is a member.
    pub(super) fn has_member(&self, step: &Element) -> bool {
        self.members.binary_search(step).is_ok()
    }

    /// What is below a step.
    pub(super) fn below(&self, step: &Element) -> Option<&Self> {
        let index = self.children.binary_search_by(|(own, _)| own.cmp(step)).ok()?;
        Some(&self.children[index].1)
    }

    /// Members directly below.
    pub(super) fn members(&self) -> &[Element] {
        &self.members
    }

    /// Steps with something below them.
    pub(super) fn children(&self) -> &[(Element, Self)] {
        &self.children
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut union = Self::default();
        zip(&self.members, &other.members, Element::cmp, |own, theirs| {
            union.members.extend(own.or(theirs).cloned());
        });
        zip(&self.children, &other.children, by_element, |own, theirs| {
            union.children.extend(match (own, theirs) {
                (Some((step, own)), Some((_, theirs))) => Some((step.clone(), own.union(theirs))),
                (one, other) => one.or(other).cloned(),
            });
        });
        union
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        zip(&self.members, &other.members, Element::cmp, |own, theirs| {
            both.members.extend(own.filter(|_| theirs.is_some()).cloned());
        });
        zip(&self.children, &other.children, by_element, |own, theirs| {
            if let (Some((step, own)), Some((_, theirs))) = (own, theirs) {
                let below = own.intersection(theirs);
                both.children.extend((!below.is_empty()).then(|| (step.clone(), below)));
            }
        });
        both
    }

    /// What is here and not there. A member there says nothing about what is below it here.
    pub fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// What is here and neither there nor below a member there.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(&self, other: &Self, recursively: bool) -> Self {
        let mut rest = Self::default();
        zip(&self.members, &other.members, Element::cmp, |own, theirs| {
            rest.members.extend(own.filter(|_| theirs.is_none()).cloned());
        });
        zip(&self.children, &other.children, by_element, |own, theirs| {
            let Some((step, own)) = own else { return };
            if recursively && other.has_member(step) {
                return;
            }
            let below = match theirs {
                Some((_, theirs)) => own.without(theirs, recursively),
                None => own.clone(),
            };
            rest.children.extend((!below.is_empty()).then(|| (step.clone(), below)));
        });
        rest
    }

    /// Every member with its path, parents first.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect_paths(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, path: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for member in &self.members {
            let mut whole = path.clone();
            whole.push(member.clone());
            paths.push(whole);
        }
        for (step, below) in &self.children {
            path.push(step.clone());
            below.collect_paths(path, paths);
            path.pop();
        }
    }

    /// As `FieldsV1`.
    pub fn encode(&self) -> Value {
        Value::Object(self.encode_into(false))
    }

    fn encode_into(&self, is_member: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        if is_member {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        zip(
            &self.members,
            &self.children,
            |member, (step, _)| member.cmp(step),
            |member, child| {
                let (step, inner) = match (member, child) {
                    (member, Some((step, below))) => (step, below.encode_into(member.is_some())),
                    (Some(step), None) => (step, Map::new()),
                    (None, None) => return,
                };
                fields.insert(step.encode(), Value::Object(inner));
            },
        );
        fields
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// A step is malformed, or it nests too deeply.
    pub fn decode(fields: &Value) -> Result<Self, String> {
        let (set, _) = Self::decode_below(fields, DEPTH_MAX)?;
        Ok(set.unwrap_or_default())
    }

    /// The set below, if there is one, and whether the field itself is a member.
    fn decode_below(fields: &Value, depth: usize) -> Result<(Option<Self>, bool), String> {
        let depth = depth.checked_sub(1).ok_or("fields are nested too deeply")?;
        let mut is_member = false;
        let mut found: Option<Self> = None;
        let entries = match fields {
            Value::Object(entries) => Some(entries),
            Value::Null => None,
            _ => return Err("expected an object".to_owned()),
        };
        for (text, inner) in entries.into_iter().flatten() {
            if text == "." {
                is_member = true;
                continue;
            }
            let Some(step) = Element::decode(text)? else { continue };
            let (below, below_is_member) = Self::decode_below(inner, depth)?;
            found.get_or_insert_default().push(step, below_is_member, below.unwrap_or_default());
        }
        is_member |= found.is_none();
        Ok((found, is_member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(fields: Value) -> Set {
        Set::decode(&fields).unwrap()
    }

    #[test]
    fn sets_are_read_and_written_as_fields_v1() {
        let check = |fields: Value| assert_eq!(set(fields.clone()).encode(), fields);
        check(json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:containers": {
            "k:{\"name\":\"x\"}": {".": {}, "f:image": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}},
            "f:finalizers": {"v:\"a\"": {}, "v:2": {}}, "f:x": {"i:0": {}}}}));
        check(json!({}));
        assert_eq!(set(json!({"z:later": {}, "f:a": {}})).encode(), json!({"f:a": {}}));
        assert!(Set::decode(&json!({"f": {}})).is_err());
        assert!(Set::decode(&json!({"k:x": {}})).is_err());
    }

    #[test]
    fn sets_are_combined_as_upstream_does() {
        let left = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let right = set(json!({"f:a": {"f:b": {}, "f:d": {}}}));
        assert_eq!(left.union(&right).encode(), json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}}));
        assert_eq!(left.intersection(&right).encode(), json!({"f:a": {"f:b": {}}}));
        assert_eq!(left.difference(&right).encode(), json!({"f:a": {}, "f:c": {}}));
        let parent = set(json!({"f:a": {}}));
        assert_eq!(left.difference(&parent).encode(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        assert_eq!(left.recursive_difference(&parent).encode(), json!({"f:c": {}}));
        let paths: Vec<_> = left
            .paths()
            .iter()
            .map(|path| path.iter().map(ToString::to_string).collect::<String>())
            .collect();
        assert_eq!(paths, [".a", ".c", ".a.b"]);
    }
}
