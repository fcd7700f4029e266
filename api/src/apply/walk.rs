//! The walks over objects: validate, compare, merge, remove, and which fields there are.
//! Upstream: structured-merge-diff `typed`.

use super::element::{Element, equal_values};
use super::place::{Atom, Form, Keys, List, ListMerge, Object, Place, Scalar, same_form};
use super::set::Set;
use crate::decode::go_text;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where and why a value does not fit the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    path: String,
    message: String,
}

impl Misfit {
    fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }

    fn below(mut self, step: &Element) -> Self {
        self.path.insert_str(0, &step.to_string());
        self
    }
}

/// Upstream's text for a list of them.
pub(super) fn misfit_text(misfits: &[Misfit]) -> String {
    let text = |misfit: &Misfit| match misfit.path.as_str() {
        "" => misfit.message.clone(),
        path => format!("{path}: {}", misfit.message),
    };
    match misfits {
        [one] => text(one),
        many => many.iter().fold("errors:".to_owned(), |sum, misfit| sum + "\n  " + &text(misfit)),
    }
}

type Walked<T> = Result<T, Vec<Misfit>>;

fn one<T>(message: impl Into<String>) -> Walked<T> {
    Err(vec![Misfit::new(message)])
}

fn form_of<'s>(atom: &Atom<'s>, value: Option<&Value>) -> Walked<Form<'s>> {
    atom.form(value).map_or_else(|| one("schema error: invalid atom"), Ok)
}

fn check_scalar(scalar: Scalar, value: Option<&Value>, side: &str) -> Result<(), Misfit> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(()) };
    let (fits, expected) = match scalar {
        Scalar::Numeric => (value.is_number(), "numeric (int or float)"),
        Scalar::String => (value.is_string(), "string"),
        Scalar::Boolean => (value.is_boolean(), "boolean"),
        Scalar::Any => (!value.is_array() && !value.is_object(), "any scalar"),
    };
    match fits {
        true => Ok(()),
        false => Err(Misfit::new(format!("{side}expected {expected}, got {}", shown(scalar, value)))),
    }
}

/// How upstream shows a value that does not fit.
fn shown(scalar: Scalar, value: &Value) -> String {
    match (scalar, value) {
        (Scalar::Numeric, _) => match value {
            Value::String(_) => "string".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Array(_) => "[]interface {}".to_owned(),
            _ => "map[string]interface {}".to_owned(),
        },
        (Scalar::String, _) => format!("&value.valueUnstructured{{Value:{}}}", value),
        _ => format!("&{{{}}}", go_text(value)),
    }
}

/// What tells an element of a merging list apart.
fn step_of(list: &List<'_>, item: &Value) -> Result<Element, String> {
    match list.merge {
        ListMerge::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListMerge::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
            scalar => Ok(Element::Value(scalar.clone())),
        },
        ListMerge::Keys(keys) => key_step(keys, list.element, item),
    }
}

fn key_step(keys: Keys<'_>, element: Place<'_>, item: &Value) -> Result<Element, String> {
    let object = match item {
        Value::Object(object) => object,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut found: Vec<(Box<str>, Value)> = Vec::with_capacity(keys.len());
    for index in 0..keys.len() {
        let key = keys.get(index);
        let value = match object.get(key) {
            Some(value) => Some(value),
            None => {
                let inner = element.atom().object.ok_or_else(|| {
                    format!(
                        "couldn't find default value for {key}: associative list may not have non-map types"
                    )
                })?;
                inner.default(key)
            }
        };
        found.extend(value.map(|value| (key.into(), value.clone())));
    }
    if found.is_empty() {
        let names: Vec<_> = (0..keys.len()).map(|index| format!("{:?}", keys.get(index))).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(Element::Key(found.into()))
}

/// Checks that a value fits the schema.
pub(super) fn validate(place: Place<'_>, value: &Value, may_repeat: bool) -> Walked<()> {
    let mut misfits = Vec::new();
    match form_of(&place.atom(), Some(value))? {
        Form::Scalar(scalar) => misfits.extend(check_scalar(scalar, Some(value), "").err()),
        Form::List(list) => match value {
            Value::Null => {}
            Value::Array(items) => validate_items(&list, items, may_repeat, &mut misfits),
            other => misfits.push(Misfit::new(format!("expected list, got &{{{}}}", go_text(other)))),
        },
        Form::Object(object) => match value {
            Value::Null => {}
            Value::Object(entries) => {
                for (name, value) in entries {
                    let step = Element::field(name);
                    let Some(place) = object.entry(name) else {
                        misfits.push(Misfit::new("field not declared in schema").below(&step));
                        break;
                    };
                    below(&step, validate(place, value, may_repeat), &mut misfits);
                }
            }
            other => misfits.push(Misfit::new(format!("expected map, got &{{{}}}", go_text(other)))),
        },
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

fn below<T>(step: &Element, result: Walked<T>, misfits: &mut Vec<Misfit>) -> Option<T> {
    match result {
        Ok(found) => Some(found),
        Err(found) => {
            misfits.extend(found.into_iter().map(|misfit| misfit.below(step)));
            None
        }
    }
}

fn validate_items(list: &List<'_>, items: &[Value], may_repeat: bool, misfits: &mut Vec<Misfit>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let step = match list.merge {
            ListMerge::Atomic => Element::Index(index as i64),
            _ => match step_of(list, item) {
                Ok(step) => {
                    if !seen.insert(step.clone()) && !may_repeat {
                        misfits.push(Misfit::new(format!("duplicate entries for key {step}")));
                    }
                    step
                }
                Err(error) => {
                    misfits.push(Misfit::new(format!("element {index}: {error}")));
                    return;
                }
            },
        };
        below(&step, validate(list.element, item, may_repeat), misfits);
    }
}

/// The fields of an object.
pub(super) fn fields_of(place: Place<'_>, value: &Value) -> Set {
    fields_below(place, value).1
}

/// Whether the value itself is a field, and the fields below it.
fn fields_below(place: Place<'_>, value: &Value) -> (bool, Set) {
    let mut set = Set::default();
    match place.atom().form(Some(value)) {
        None => {}
        Some(Form::Scalar(_)) => return (true, set),
        Some(Form::List(list)) => match (list.merge, value) {
            (ListMerge::Atomic, _) => return (true, set),
            (_, Value::Array(items)) => {
                let steps: Vec<_> = items.iter().map(|item| step_of(&list, item).ok()).collect();
                let mut counts: BTreeMap<&Element, usize> = BTreeMap::new();
                for step in steps.iter().flatten() {
                    *counts.entry(step).or_default() += 1;
                }
                let repeated: Vec<_> =
                    counts.iter().filter(|(_, count)| **count > 1).map(|(step, _)| (*step).clone()).collect();
                for (step, item) in steps.into_iter().zip(items) {
                    let Some(step) = step else { continue };
                    if repeated.binary_search(&step).is_err() {
                        let (_, below) = fields_below(list.element, item);
                        set.push(step, true, below);
                    }
                }
                repeated.into_iter().for_each(|step| set.push_member(step));
            }
            _ => {}
        },
        Some(Form::Object(object)) => {
            if object.atomic {
                return (true, set);
            }
            for (name, value) in value.as_object().into_iter().flatten() {
                let declared = object.field(name);
                let Some(place) = declared.or(object.element) else { continue };
                let (is_field, below) = fields_below(place, value);
                let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.push(Element::field(name), is_field || is_empty || declared.is_none(), below);
            }
        }
    }
    (false, set)
}

/// How two objects differ.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: Set,
    pub(super) modified: Set,
    pub(super) added: Set,
}

/// What happened to a value itself.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    removed: bool,
    modified: bool,
    added: bool,
}

/// Compares two objects. Values that do not fit the schema are compared as far as they do.
pub(super) fn compare(place: Place<'_>, left: &Value, right: &Value) -> Walked<Comparison> {
    let mut comparison = Comparison::default();
    compare_values_at(place, Some(left), Some(right), &mut comparison)?;
    Ok(comparison)
}

fn compare_values_at(
    place: Place<'_>,
    left: Option<&Value>,
    right: Option<&Value>,
    below: &mut Comparison,
) -> Walked<Own> {
    let atom = place.atom();
    let mut own = Own::default();
    let is_leaf = match (left, right) {
        (_, None) => compare_form(&form_of(&atom, left)?, left, right, &mut own, below)?,
        (None, _) => compare_form(&form_of(&atom, right)?, left, right, &mut own, below)?,
        _ => {
            let (left_form, right_form) = (form_of(&atom, left)?, form_of(&atom, right)?);
            if !same_form(&left_form, &right_form) {
                compare_form(&left_form, left, right, &mut own, below)?;
            }
            compare_form(&right_form, left, right, &mut own, below)?
        }
    };
    if !is_leaf {
        own.added |= left.is_none();
        own.removed |= right.is_none() && left.is_some();
    }
    Ok(own)
}

/// Compares as one form. Whether it was a leaf.
fn compare_form(
    form: &Form<'_>,
    left: Option<&Value>,
    right: Option<&Value>,
    own: &mut Own,
    below: &mut Comparison,
) -> Walked<bool> {
    let mut leaf = || {
        match (left, right) {
            (None, _) => own.added = true,
            (_, None) => own.removed = true,
            (Some(left), Some(right)) => own.modified |= !equal_values(left, right),
        }
        Ok(true)
    };
    match form {
        Form::Scalar(scalar) => {
            let misfits = [check_scalar(*scalar, left, "lhs: "), check_scalar(*scalar, right, "rhs: ")];
            match misfits {
                [Err(left), Err(right)] => Err(vec![left, right]),
                _ => leaf(),
            }
        }
        Form::List(list) => {
            let (left, right) = (as_items(left), as_items(right));
            if matches!(list.merge, ListMerge::Atomic) || left.is_empty() && right.is_empty() {
                return leaf();
            }
            compare_items(list, left, right, below)?;
            Ok(false)
        }
        Form::Object(object) => {
            let (left, right) = (as_entries(left), as_entries(right));
            let is_empty = |side: Option<&Map<String, Value>>| side.is_none_or(Map::is_empty);
            if object.atomic || is_empty(left) && is_empty(right) {
                return leaf();
            }
            compare_entries(object, left, right, below)?;
            Ok(false)
        }
    }
}

fn as_items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn as_entries(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

impl Comparison {
    fn attach(&mut self, step: Element, own: Own, below: Self) {
        let parts = [
            (&mut self.removed, own.removed, below.removed),
            (&mut self.modified, own.modified, below.modified),
            (&mut self.added, own.added, below.added),
        ];
        for (set, is_member, below) in parts {
            if is_member || !below.is_empty() {
                set.push(step.clone(), is_member, below);
            }
        }
    }
}

fn compare_entries(
    object: &Object<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    comparison: &mut Comparison,
) -> Walked<()> {
    let mut misfits = Vec::new();
    let mut entry = |name: &str, left: Option<&Value>, right: Option<&Value>| {
        let step = Element::field(name);
        let mut inner = Comparison::default();
        let result = match object.entry(name) {
            Some(place) => compare_values_at(place, left, right, &mut inner),
            None => one("field not declared in schema"),
        };
        if let Some(own) = below(&step, result, &mut misfits) {
            comparison.attach(step, own, inner);
        }
    };
    let mut others = right.into_iter().flatten().peekable();
    for (name, value) in left.into_iter().flatten() {
        while let Some((other, added)) = others.next_if(|(other, _)| *other < name) {
            entry(other, None, Some(added));
        }
        let same = others.next_if(|(other, _)| *other == name).map(|(_, value)| value);
        entry(name, Some(value), same);
    }
    for (name, value) in others {
        entry(name, None, Some(value));
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// The elements of a list by what tells them apart; several where it repeats.
fn by_step<'v>(
    list: &List<'_>,
    items: &'v [Value],
    misfits: &mut Vec<Misfit>,
) -> BTreeMap<Element, Vec<&'v Value>> {
    let mut found: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        match step_of(list, item) {
            Ok(step) => found.entry(step).or_default().push(item),
            Err(error) => misfits.push(Misfit::new(format!("element {index}: {error}"))),
        }
    }
    found
}

fn compare_items(
    list: &List<'_>,
    left: &[Value],
    right: &[Value],
    comparison: &mut Comparison,
) -> Walked<()> {
    let mut misfits = Vec::new();
    let left = by_step(list, left, &mut misfits);
    let mut right = by_step(list, right, &mut misfits);
    let mut pairs: Vec<_> = left
        .into_iter()
        .map(|(step, left)| {
            let right = right.remove(&step).unwrap_or_default();
            (step, left, right)
        })
        .collect();
    pairs.extend(right.into_iter().map(|(step, right)| (step, Vec::new(), right)));
    for (step, left, right) in pairs {
        let mut inner = Comparison::default();
        let (one_left, one_right, own) = match (left.as_slice(), right.as_slice()) {
            ([_, _, ..], [_, _, ..]) => {
                let same = left.len() == right.len()
                    && left.iter().zip(&right).all(|(left, right)| equal_values(left, right));
                comparison.attach(step, Own { modified: !same, ..Own::default() }, inner);
                continue;
            }
            ([_, _, ..], right) => (None, right.first().copied(), Own { removed: true, ..Own::default() }),
            (left, [_, _, ..]) => (left.first().copied(), None, Own { added: true, ..Own::default() }),
            (left, right) => (left.first().copied(), right.first().copied(), Own::default()),
        };
        let compared = match (one_left, one_right) {
            (None, None) => Ok(Own::default()),
            _ => compare_values_at(list.element, one_left, one_right, &mut inner),
        };
        if let Some(found) = below(&step, compared, &mut misfits) {
            let own = Own {
                removed: own.removed || found.removed,
                modified: found.modified,
                added: own.added || found.added,
            };
            comparison.attach(step, own, inner);
        }
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// Merges `right` over `left`. `None` is nothing.
pub(super) fn merge(place: Place<'_>, left: Option<&Value>, right: Option<&Value>) -> Walked<Option<Value>> {
    let atom = place.atom();
    match (left, right) {
        (None, None) => one("at least one of lhs and rhs must be provided"),
        (_, None) => merge_form(&form_of(&atom, left)?, left, right),
        (None, _) => merge_form(&form_of(&atom, right)?, left, right),
        _ => {
            let (left_form, right_form) = (form_of(&atom, left)?, form_of(&atom, right)?);
            if !same_form(&left_form, &right_form) {
                merge_form(&left_form, left, right)?;
            }
            merge_form(&right_form, left, right)
        }
    }
}

fn merge_form(form: &Form<'_>, left: Option<&Value>, right: Option<&Value>) -> Walked<Option<Value>> {
    let keep_right = || Ok(right.or(left).cloned());
    match form {
        Form::Scalar(scalar) => {
            let misfits = [check_scalar(*scalar, left, "lhs: "), check_scalar(*scalar, right, "rhs: ")];
            match misfits {
                [Err(left), Err(right)] => Err(vec![left, right]),
                _ => keep_right(),
            }
        }
        Form::List(list) => {
            let (left, right) = (as_items(left), as_items(right));
            if matches!(list.merge, ListMerge::Atomic) || left.is_empty() && right.is_empty() {
                return keep_right();
            }
            let merged = merge_items(list, left, right)?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
        Form::Object(object) => {
            let (left, right) = (as_entries(left), as_entries(right));
            let is_empty = |side: Option<&Map<String, Value>>| side.is_none_or(Map::is_empty);
            if object.atomic || is_empty(left) && is_empty(right) {
                return keep_right();
            }
            let merged = merge_entries(object, left, right)?;
            Ok((!merged.is_empty()).then_some(Value::Object(merged)))
        }
    }
}

fn merge_entries(
    object: &Object<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
) -> Walked<Map<String, Value>> {
    let mut misfits = Vec::new();
    let mut merged = Map::new();
    let names = left.into_iter().flatten().map(|(name, _)| name);
    let new = right.into_iter().flatten().map(|(name, _)| name);
    for name in names.chain(new.filter(|name| !left.is_some_and(|left| left.contains_key(*name)))) {
        let (own, theirs) = (left.and_then(|side| side.get(name)), right.and_then(|side| side.get(name)));
        let result = match object.entry(name) {
            Some(place) => merge(place, own, theirs),
            None => one("field not declared in schema"),
        };
        if let Some(Some(value)) = below(&Element::field(name), result, &mut misfits) {
            merged.insert(name.clone(), value);
        }
    }
    if misfits.is_empty() { Ok(merged) } else { Err(misfits) }
}

/// The steps of a list, and the element of each; null where it repeats and that is allowed.
fn index_items<'v>(
    list: &List<'_>,
    items: &'v [Value],
    may_repeat: bool,
    misfits: &mut Vec<Misfit>,
) -> (Vec<Element>, BTreeMap<Element, &'v Value>) {
    static NULL: Value = Value::Null;
    let (mut steps, mut found) = (Vec::with_capacity(items.len()), BTreeMap::new());
    for (index, item) in items.iter().enumerate() {
        match step_of(list, item) {
            Err(error) => misfits.push(Misfit::new(format!("element {index}: {error}"))),
            Ok(step) if found.contains_key(&step) => {
                if may_repeat {
                    found.insert(step.clone(), &NULL);
                    steps.push(step);
                } else {
                    misfits.push(Misfit::new(format!("duplicate entries for key {step}")));
                }
            }
            Ok(step) => {
                found.insert(step.clone(), item);
                steps.push(step);
            }
        }
    }
    (steps, found)
}

/// Merges two lists by key: the order of `right` holds, what only `left` has stays where it was as far as that allows.
fn merge_items(list: &List<'_>, left_items: &[Value], right_items: &[Value]) -> Walked<Vec<Value>> {
    let mut misfits = Vec::new();
    let (right_steps, right) = index_items(list, right_items, false, &mut misfits);
    let (left_steps, left) = index_items(list, left_items, true, &mut misfits);
    if !misfits.is_empty() {
        return Err(misfits);
    }
    let mut shared = right_steps.iter().filter(|step| left.contains_key(*step));
    let mut next_shared = shared.next();
    let mut merged_steps = std::collections::BTreeSet::new();
    let mut out = Vec::with_capacity(left_steps.len().max(right_steps.len()));
    let mut take = |step: &Element, left: Option<&Value>, right: Option<&Value>| {
        if let Some(Some(value)) = below(step, merge(list.element, left, right), &mut misfits) {
            out.push(value);
        }
    };
    let (mut at_left, mut at_right) = (0, 0);
    while at_left < left_steps.len() || at_right < right_steps.len() {
        if let (Some(step), Some(right_step)) = (left_steps.get(at_left), right_steps.get(at_right)) {
            if step == right_step {
                merged_steps.insert(step);
                take(step, left.get(step).copied(), right.get(step).copied());
                (at_left, at_right) = (at_left + 1, at_right + 1);
                next_shared = shared.next();
                continue;
            }
            if right.contains_key(step) && next_shared.is_some_and(|next| next != step) {
                // Shared, but its turn comes later.
                at_left += 1;
                continue;
            }
        }
        if let Some(step) = left_steps.get(at_left) {
            if !right.contains_key(step) {
                take(step, left_items.get(at_left), None);
                at_left += 1;
                continue;
            }
            if merged_steps.contains(step) {
                at_left += 1;
            }
        }
        if let Some(step) = right_steps.get(at_right) {
            merged_steps.insert(step);
            take(step, left.get(step).copied(), right.get(step).copied());
            at_right += 1;
            if next_shared.is_some_and(|next| next == step) {
                next_shared = shared.next();
            }
        }
    }
    if misfits.is_empty() { Ok(out) } else { Err(misfits) }
}

/// Takes fields out of a value. What is left of an object that becomes empty is null.
pub(super) fn remove(place: Place<'_>, value: &Value, fields: &Set) -> Value {
    match (place.atom().form(Some(value)), value) {
        (Some(Form::Scalar(_)), _) => value.clone(),
        (Some(Form::List(list)), Value::Array(items)) if !matches!(list.merge, ListMerge::Atomic) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let step = step_of(&list, item).ok();
                if step.as_ref().is_some_and(|step| fields.has_member(step)) {
                    continue;
                }
                kept.push(match step.and_then(|step| fields.below(&step)) {
                    Some(below) if !below.is_empty() => remove(list.element, item, below),
                    _ => item.clone(),
                });
            }
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
        (Some(Form::Object(object)), Value::Object(entries)) if !object.atomic => {
            let mut kept = Map::new();
            for (name, value) in entries {
                let step = Element::field(name);
                if fields.has_member(&step) {
                    continue;
                }
                let rest = match (fields.below(&step), object.entry(name)) {
                    (Some(below), Some(place)) if !below.is_empty() => remove(place, value, below),
                    _ => value.clone(),
                };
                kept.insert(name.clone(), rest);
            }
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        _ => Value::Null,
    }
}

/// The same set with every field that the schema names and that has something below it as a member.
pub(super) fn with_named_fields(place: Option<Place<'_>>, set: &Set) -> Set {
    let atom = place.map(Place::atom).unwrap_or_default();
    let mut all = Set::default();
    for member in set.members() {
        all.push_member(member.clone());
    }
    for (step, below) in set.children() {
        let (is_named, inner) = match step {
            Element::Field(name) => match &atom.object {
                Some(object) => (object.field(name).is_some(), object.entry(name)),
                None => (false, None),
            },
            Element::Key(_) => (false, atom.list.map(|list| list.element)),
            Element::Value(_) | Element::Index(_) => (false, None),
        };
        all.push(step.clone(), is_named, with_named_fields(inner, below));
    }
    all
}

/// Brings a set that was written under another schema in line with this one: where a list or object has become atomic,
/// its owner owns the whole. `None` if nothing changed.
pub(super) fn reconcile(place: Place<'_>, set: &Set) -> Option<Set> {
    let (mut removed, mut added) = (Set::default(), Set::default());
    find_atomic(place, Some(set), false, &mut Vec::new(), &mut removed, &mut added);
    if removed.is_empty() {
        return None;
    }
    Some(set.recursive_difference(&removed).union(&added))
}

fn find_atomic(
    place: Place<'_>,
    set: Option<&Set>,
    is_leaf: bool,
    path: &mut Vec<Element>,
    removed: &mut Set,
    added: &mut Set,
) {
    let Some(form) = place.atom().form(None) else { return };
    let mut whole = || {
        removed.insert(path);
        added.insert(path);
    };
    match &form {
        Form::Scalar(_) => return,
        Form::List(list) if !is_leaf && matches!(list.merge, ListMerge::Atomic) => return whole(),
        Form::List(_) => {}
        Form::Object(object) if Place::is_deduced_object(object) => return,
        Form::Object(object) if !is_leaf && object.atomic => {
            if set.is_some_and(|set| !set.is_empty()) {
                whole();
            }
            return;
        }
        Form::Object(_) => {}
    }
    let inner = |step: &Element| match (&form, step) {
        (Form::Scalar(_), _) => None,
        (Form::List(list), _) => Some(list.element),
        (Form::Object(object), Element::Field(name)) => object.entry(name),
        (Form::Object(object), _) => object.element,
    };
    let Some(set) = set else { return };
    let mut visit = |step: &Element, is_member: bool| {
        let Some(place) = inner(step) else { return };
        let below = set.below(step);
        path.push(step.clone());
        find_atomic(place, below, is_member && below.is_none(), path, removed, added);
        path.pop();
    };
    for (step, _) in set.children().iter().filter(|(step, _)| !set.has_member(step)) {
        visit(step, false);
    }
    for step in set.members() {
        visit(step, true);
    }
}

/// Whether two objects are the same for apply.
pub(super) fn same(left: &Value, right: &Value) -> bool {
    equal_values(left, right)
}
