//! Strategic merge patch: lists merge by key, and directives (`$patch`, `$retainKeys`, `$setElementOrder/…`,
//! `$deleteFromPrimitiveList/…`) say what else happens. Upstream: apimachinery `pkg/util/strategicpatch`.
//!
//! Elements are looked up by the text of their key in maps, so that long lists cost no more than sorting.

use super::PatchError;
use crate::decode::go_text;
use crate::schema::{Field, Kind, Many, Schema, Shape, TypeId};
use serde_json::{Map, Value};
use std::collections::{HashMap, HashSet};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, PatchError>;

/// Merges a patch into an object of the published type `id`.
///
/// # Errors
/// The patch is no object, a directive is malformed, or the patch does not fit the type.
pub fn apply(schema: &Schema, id: TypeId, live: Value, patch: Value) -> Result<Value> {
    let (Value::Object(live), Value::Object(patch)) = (live, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    Merge { schema }.map(live, patch, Place::Type(id)).map(Value::Object)
}

fn malformed<T>(text: &str) -> Result<T> {
    Err(PatchError::Malformed(text.to_owned()))
}

fn unexpected<T>(text: String) -> Result<T> {
    Err(PatchError::Unexpected(text))
}

/// What the schema says about the place that is merged.
#[derive(Clone, Copy)]
enum Place {
    Type(TypeId),
    /// Not a struct: Go's word for what it is.
    Other(&'static str),
}

/// Go's name of the type of a JSON value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn list_of(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => unexpected(format!("expected a []interface {{}}, but received a {}", go_type(&other))),
    }
}

/// What tells an element apart, as text: the merge key of an object, or the scalar itself.
fn key_of(item: &Value, merge_key: &str) -> Result<String> {
    if merge_key.is_empty() {
        return Ok(item.to_string());
    }
    let Value::Object(object) = item else {
        return unexpected(format!("expected a map[string]interface {{}}, but received a {}", go_type(item)));
    };
    match object.get(merge_key) {
        Some(value) => Ok(value.to_string()),
        None => {
            unexpected(format!("map: {} does not contain declared merge key: {merge_key}", go_text(item)))
        }
    }
}

fn positions(items: &[Value], merge_key: &str) -> Result<HashMap<String, usize>> {
    let mut positions = HashMap::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        positions.entry(key_of(item, merge_key)?).or_insert(index);
    }
    Ok(positions)
}

/// Checks that all elements are of one type that may be merged, and says whether they are objects.
fn are_objects(lists: [&[Value]; 2]) -> Result<bool> {
    let mut all = lists.into_iter().flatten();
    let Some(first) = all.next() else {
        return unexpected("no elements in any of the given slices".to_owned());
    };
    if first.is_array() {
        return Err(PatchError::DoesNotApply { reason: "lists of lists are not supported".to_owned() });
    }
    if all.any(|item| go_type(item) != go_type(first)) {
        let text: Vec<_> = lists.iter().map(|list| go_text(&Value::Array(list.to_vec()))).collect();
        return unexpected(format!("list element types are not identical: [{}]", text.join(" ")));
    }
    Ok(first.is_object())
}

fn is_directive(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some()
}

/// Takes directives out of a value that is new. `None` if the value itself is one.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(object) if object.contains_key(DIRECTIVE) => return None,
        Value::Object(object) => {
            let kept =
                object.into_iter().filter_map(|(name, value)| Some((name, without_directives(value)?)));
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().filter_map(without_directives).collect()),
        other => other,
    })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Puts a value in place as it is, without directives.
fn put(live: &mut Object, name: &str, mut value: Value) {
    without_nulls(&mut value);
    match without_directives(value) {
        Some(value) => drop(live.insert(name.to_owned(), value)),
        None => drop(live.remove(name)),
    }
}

struct Merge<'s> {
    schema: &'s Schema,
}

impl<'s> Merge<'s> {
    fn field(&self, place: Place, name: &str) -> Result<&'s Field> {
        let id = match place {
            Place::Type(id) => id,
            Place::Other(kind) => {
                return unexpected(format!(
                    "merging an object in json but data type is not struct, instead is: {kind}"
                ));
            }
        };
        match self.schema.field(id, name) {
            Some(field) => Ok(field),
            None => {
                let struct_name = self.schema.get(id).go_name.rsplit('.').next().unwrap_or_default();
                unexpected(format!(
                    "unable to find api field in struct {struct_name} for the json field {name:?}"
                ))
            }
        }
    }

    fn place_of(&self, kind: Kind) -> Place {
        match kind {
            Kind::Type(id) => Place::Type(id),
            Kind::String => Place::Other("string"),
            Kind::Bytes => Place::Other("slice"),
            Kind::Int32 => Place::Other("int32"),
            Kind::Int64 => Place::Other("int64"),
            Kind::Uint => Place::Other("uint64"),
            Kind::Bool => Place::Other("bool"),
            Kind::Double => Place::Other("float64"),
            Kind::Any => Place::Other("interface"),
        }
    }

    /// What an object in this field is.
    fn object_place(&self, field: &Field) -> Place {
        match field.many {
            Many::One => self.place_of(field.kind),
            Many::List => Place::Other("slice"),
            Many::Map | Many::MapOfLists => Place::Other("map"),
        }
    }

    /// What an element of the list in this field is.
    fn element_place(&self, field: &Field) -> Result<Place> {
        match (field.many, field.kind) {
            (Many::List, kind) => Ok(self.place_of(kind)),
            (Many::One, Kind::Type(id)) if self.schema.get(id).shape == Shape::List => {
                Ok(self.place_of(self.schema.get(id).fields[0].kind))
            }
            _ => unexpected("expected slice or array type, but got: struct".to_owned()),
        }
    }

    fn map(&self, mut live: Object, mut patch: Object, place: Place) -> Result<Object> {
        if let Some(directive) = patch.get(DIRECTIVE) {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(DIRECTIVE);
                    Ok(patch)
                }
                Some("delete") => Ok(Object::new()),
                _ => {
                    let directive = go_text(directive);
                    unexpected(format!(
                        "unknown patch type: {directive} in map: {}",
                        go_text(&Value::Object(patch))
                    ))
                }
            };
        }
        retain_keys(&mut live, &mut patch)?;
        self.ordered_lists(&mut live, &mut patch, place)?;
        for (name, value) in patch {
            self.entry(&mut live, &name, value, place)?;
        }
        Ok(live)
    }

    fn entry(&self, live: &mut Object, name: &str, value: Value, place: Place) -> Result<()> {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM_LIST) {
            None => (name, false),
            Some(rest) => match rest.strip_prefix('/') {
                Some(name) => (name, true),
                None => return malformed("invalid patch format of primitive list"),
            },
        };
        if value.is_null() {
            live.remove(name);
            return Ok(());
        }
        match (live.get_mut(name), value) {
            (Some(Value::Object(own)), Value::Object(inner)) => {
                let field = self.field(place, name)?;
                let merged = if field.patch_replaces() {
                    inner
                } else {
                    self.map(std::mem::take(own), inner, self.object_place(field))?
                };
                live.insert(name.to_owned(), Value::Object(merged));
            }
            (Some(Value::Array(own)), Value::Array(items)) => {
                let field = self.field(place, name)?;
                let element = self.element_place(field)?;
                let own = std::mem::take(own);
                let merged = match (deletes, field.patch_merges()) {
                    (true, _) => delete_scalars(own, &items)?,
                    (false, true) => self.list(own, items, field.patch_merge_key, element)?,
                    (false, false) => items,
                };
                live.insert(name.to_owned(), Value::Array(merged));
            }
            _ if deletes => {}
            (_, value) => put(live, name, value),
        }
        Ok(())
    }

    /// Merges the lists that have a `$setElementOrder`, and takes them out of the patch.
    fn ordered_lists(&self, live: &mut Object, patch: &mut Object, place: Place) -> Result<()> {
        let directives: Vec<_> =
            patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
        for directive in directives {
            let Some(order) = patch.remove(&directive) else { continue };
            let order = list_of(order)?;
            let Some(name) = directive[ELEMENT_ORDER.len()..].strip_prefix('/') else {
                return malformed("invalid patch format of setElementOrder list");
            };
            let own = live.get(name).cloned().map(list_of).transpose()?;
            let items = patch.get(name).cloned().map(list_of).transpose()?;
            let field = self.field(place, name)?;
            let element = self.element_place(field)?;
            let key = field.patch_merge_key;
            if let Some(items) = &items {
                check_order(items, &order, key)?;
            }
            let server_order = own.clone().unwrap_or_default();
            let objects = match (&own, &items) {
                (None, None) => continue,
                _ => are_objects([own.as_deref().unwrap_or_default(), items.as_deref().unwrap_or_default()])?,
            };
            let merged = match (own, items) {
                (Some(own), Some(items)) if field.patch_merges() => self.list(own, items, key, element)?,
                (_, Some(items)) => items.into_iter().filter_map(without_directives).collect(),
                (Some(own), None) => own,
                (None, None) => continue,
            };
            let key = if objects { key } else { "" };
            let ordered = in_order(merged, &order, &server_order, key)?;
            live.insert(name.to_owned(), Value::Array(ordered));
            patch.remove(name);
        }
        Ok(())
    }

    fn list(
        &self,
        own: Vec<Value>,
        items: Vec<Value>,
        merge_key: &str,
        element: Place,
    ) -> Result<Vec<Value>> {
        if own.is_empty() && items.is_empty() {
            return Ok(own);
        }
        if !are_objects([&own, &items])? {
            let mut seen = HashSet::new();
            let (server_order, order) = (own.clone(), items.clone());
            let both = own.into_iter().chain(items).filter(|item| seen.insert(item.to_string())).collect();
            return in_order(both, &order, &server_order, "");
        }
        if merge_key.is_empty() {
            let name = match element {
                Place::Type(_) => "struct",
                Place::Other(kind) => kind,
            };
            return unexpected(format!("cannot merge lists without merge key for {name}"));
        }
        let (mut own, items) = directives(own, items, merge_key)?;
        let server_order: Vec<Value> = own.iter().map(|item| only_key(item, merge_key)).collect();
        let order: Vec<Value> = items.iter().map(|item| only_key(item, merge_key)).collect();
        let mut known = positions(&own, merge_key)?;
        for item in items {
            let key = key_of(&item, merge_key)?;
            match known.get(&key) {
                Some(&index) => {
                    let (Value::Object(live), Value::Object(patch)) = (own[index].take(), item) else {
                        continue;
                    };
                    own[index] = Value::Object(self.map(live, patch, element)?);
                }
                None => {
                    known.insert(key, own.len());
                    own.push(item);
                }
            }
        }
        in_order(own, &order, &server_order, merge_key)
    }
}

/// An element reduced to its key: enough to put others in order.
fn only_key(item: &Value, merge_key: &str) -> Value {
    match item.get(merge_key) {
        Some(value) => serde_json::json!({ merge_key: value }),
        None => item.clone(),
    }
}

/// Acts on elements with `$patch`: what is left of the live list and of the patch.
fn directives(mut own: Vec<Value>, items: Vec<Value>, merge_key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut ordinary = Vec::with_capacity(items.len());
    let mut deleted = HashSet::new();
    let mut replaces = false;
    for item in items {
        match item.get(DIRECTIVE) {
            None => ordinary.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    deleted.insert(key_of(&item, merge_key)?);
                }
                Some("replace") => replaces = true,
                Some("merge") => {
                    return unexpected("merging lists cannot yet be specified in the patch".to_owned());
                }
                _ => {
                    let directive = go_text(directive);
                    return unexpected(format!("unknown patch type: {directive} in map: {}", go_text(&item)));
                }
            },
        }
    }
    if replaces {
        return Ok((ordinary, Vec::new()));
    }
    if !deleted.is_empty() {
        // Elements without the key stay; upstream compares with what is there.
        own.retain(|item| !item.get(merge_key).is_some_and(|value| deleted.contains(&value.to_string())));
    }
    Ok((own, ordinary))
}

fn retain_keys(live: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(retained) = retained else {
        return malformed("invalid patch format of retainKeys");
    };
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let fits = |(name, value): (&String, &Value)| {
        value.is_null()
            || name.starts_with(DELETE_FROM_LIST)
            || name.starts_with(ELEMENT_ORDER)
            || retained.contains(name.as_str())
    };
    if !patch.iter().all(fits) {
        return malformed("invalid patch format of retainKeys");
    }
    live.retain(|name, _| retained.contains(name.as_str()));
    Ok(())
}

fn delete_scalars(own: Vec<Value>, items: &[Value]) -> Result<Vec<Value>> {
    if own.is_empty() && items.is_empty() {
        return Ok(own);
    }
    are_objects([&own, items])?;
    let deleted: HashSet<String> = items.iter().map(ToString::to_string).collect();
    Ok(own.into_iter().filter(|item| !deleted.contains(&item.to_string())).collect())
}

/// Checks that the elements of a patch are in the order that its `$setElementOrder` gives.
fn check_order(items: &[Value], order: &[Value], merge_key: &str) -> Result<()> {
    if items.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut place = 0;
    for item in items.iter().filter(|item| !is_directive(item)) {
        let key = key_of(item, merge_key)?;
        loop {
            let Some(next) = order.get(place) else {
                let (items, order) =
                    (go_text(&Value::Array(items.to_vec())), go_text(&Value::Array(order.to_vec())));
                return unexpected(format!(
                    "The order in patch list:\n{items}\n doesn't match {ELEMENT_ORDER} list:\n{order}\n"
                ));
            };
            place += 1;
            if key_of(next, merge_key)? == key {
                break;
            }
        }
    }
    Ok(())
}

/// Sorts a merged list: what `order` names in that order, the rest as on the server, both interleaved by the server's order.
fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server_order: &[Value],
    merge_key: &str,
) -> Result<Vec<Value>> {
    let (wanted, server) = (positions(order, merge_key)?, positions(server_order, merge_key)?);
    let (mut named, mut rest) = (Vec::new(), Vec::new());
    for item in merged {
        let key = key_of(&item, merge_key)?;
        let server = server.get(&key).copied();
        match wanted.get(&key) {
            Some(&place) => named.push((place, server, item)),
            None => rest.push((server.unwrap_or(usize::MAX), server, item)),
        }
    }
    named.sort_by_key(|(place, ..)| *place);
    rest.sort_by_key(|(place, ..)| *place);
    let mut sorted = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let next = match (named.peek(), rest.peek()) {
            (Some((_, Some(named_at), _)), Some((_, Some(rest_at), _))) if rest_at < named_at => rest.next(),
            (Some(_), _) => named.next(),
            (None, _) => rest.next(),
        };
        match next {
            Some((_, _, item)) => sorted.push(item),
            None => return Ok(sorted),
        }
    }
}
