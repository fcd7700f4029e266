//! The schema table: what upstream's published types look like. Names, JSON and protobuf shape, patch and apply
//! strategies and defaults, and nothing for people to read.
//!
//! `table.gz` is written by `cargo xtask codegen` from upstream's Go types and API description (module versions in
//! `xtask/codegen/go.mod`). It is unpacked at the first use, once per process, in a few milliseconds.

mod load;

use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Which type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

/// All types and kinds.
#[derive(Debug)]
pub struct Schema {
    types: Vec<Type>,
    kinds: HashMap<(&'static str, &'static str, &'static str), TypeId>,
    names: HashMap<&'static str, TypeId>,
}

/// One type.
#[derive(Debug)]
pub struct Type {
    /// Name in the published API description, `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    /// As Go's errors spell it, `v1.Pod`.
    pub go_name: &'static str,
    /// How its JSON looks.
    pub shape: Shape,
    /// Whether apply treats it as one value wherever it is used (`+structType=atomic`).
    pub atomic: bool,
    /// Fields by protobuf number; those that protobuf does not know come first, with number 0.
    pub fields: Box<[Field]>,
    /// JSON names, sorted, with the own field that has it or the inlined field to look into.
    names: Box<[(&'static str, u16)]>,
}

/// How the JSON of a type looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object with the fields of the type.
    Struct,
    /// A list under a name of its own (`ExtraValue`); the element is that of the one field.
    List,
    /// A string such as `500m`.
    Quantity,
    /// RFC 3339 in seconds.
    Time,
    /// RFC 3339 in microseconds.
    MicroTime,
    /// Go's `1h0m0s`.
    Duration,
    /// A 32-bit number or a string.
    IntOrString,
    /// Any JSON, kept as it is (`RawExtension`, `FieldsV1`, `JSON`).
    Raw,
    /// A schema or a list of them.
    SchemaOrArray,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of strings.
    SchemaOrStrings,
}

/// What one value of a field is (an element, where the field is a list or a map).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// Bytes, base64 in JSON.
    Bytes,
    /// 32-bit signed.
    Int32,
    /// 64-bit signed.
    Int64,
    /// Unsigned.
    Uint,
    /// A boolean.
    Bool,
    /// A 64-bit float.
    Double,
    /// Any JSON value.
    Any,
    /// A type of the table.
    Type(TypeId),
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Many {
    /// One.
    One,
    /// A list.
    List,
    /// An object with free keys.
    Map,
    /// An object with free keys whose values are lists.
    MapOfLists,
}

/// How apply merges a list (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced as a whole.
    Atomic,
    /// Merged by value.
    Set,
    /// Merged by the keys named in [`Field::list_keys`].
    Map,
}

/// One field.
#[derive(Debug)]
pub struct Field {
    /// Protobuf number; 0 if protobuf does not know it.
    pub number: u32,
    /// JSON name; empty if inlined.
    pub name: &'static str,
    /// What one value is.
    pub kind: Kind,
    /// How many values.
    pub many: Many,
    /// Whether its own fields appear in place of it.
    pub inline: bool,
    /// Whether Go leaves it out when it is zero or empty.
    pub omit_empty: bool,
    /// Whether Go leaves it out when the whole struct is zero.
    pub omit_zero: bool,
    /// Whether it can be absent in Go.
    pub pointer: bool,
    /// Whether the published description calls it required.
    pub required: bool,
    /// As Go's errors spell the type, without the pointer: `[]v1.Container`.
    pub go_type: &'static str,
    /// Strategic merge patch: `merge`, `replace`, `retainKeys`, several of them with commas, or empty.
    pub patch_strategy: &'static str,
    /// Strategic merge patch: which field tells elements apart.
    pub patch_merge_key: &'static str,
    /// Apply: how a list merges.
    pub list_type: ListType,
    /// Apply: what tells elements apart.
    pub list_keys: Box<[&'static str]>,
    /// Apply: whether a map or struct is replaced as a whole here (`x-kubernetes-map-type`), where the field says so.
    pub atomic_here: Option<bool>,
    /// The published default.
    pub default: Option<Value>,
}

impl Field {
    /// Whether strategic merge patch merges this list or map instead of replacing it.
    pub fn patch_merges(&self) -> bool {
        self.patch_strategy.split(',').any(|strategy| strategy == "merge")
    }

    /// Whether strategic merge patch replaces it as a whole.
    pub fn patch_replaces(&self) -> bool {
        self.patch_strategy.split(',').any(|strategy| strategy == "replace")
    }

    /// Whether strategic merge patch keeps only the keys that the patch lists in `$retainKeys`.
    pub fn patch_retains_keys(&self) -> bool {
        self.patch_strategy.split(',').any(|strategy| strategy == "retainKeys")
    }
}

/// Kinds that every group version has: `DeleteOptions` of `apps/v1` is that of `v1`.
const EVERYWHERE: [&str; 7] = [
    "WatchEvent",
    "ListOptions",
    "GetOptions",
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
];

impl Schema {
    /// Upstream's published types. The first call unpacks them.
    pub fn published() -> &'static Self {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(load::published);
        &SCHEMA
    }

    /// The type of a kind. `group` is empty for core.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let found = self.kinds.get(&(group, version, kind));
        found.or_else(|| EVERYWHERE.contains(&kind).then(|| self.kinds.get(&("", "v1", kind)))?).copied()
    }

    /// The type of `apiVersion` and `kind` as objects carry them.
    pub fn object(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kind(group, version, kind)
    }

    /// All kinds: group, version, kind and type, in no order.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, TypeId)> + '_ {
        self.kinds.iter().map(|((group, version, kind), id)| (*group, *version, *kind, *id))
    }

    /// The type with this name in the published API description (`io.k8s.api.core.v1.Pod`).
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// The type itself.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The field with this JSON name, also of inlined types.
    pub fn field(&self, id: TypeId, name: &str) -> Option<&Field> {
        self.field_through(id, name, |_| ())
    }

    /// Like [`Schema::field`], telling `through` about every inlined type on the way.
    pub fn field_through<'s>(
        &'s self,
        mut id: TypeId,
        name: &str,
        mut through: impl FnMut(&'s Type),
    ) -> Option<&'s Field> {
        loop {
            let own = self.get(id);
            let index = own.names.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
            let field = &own.fields[own.names[index].1 as usize];
            match field.kind {
                Kind::Type(inner) if field.inline => {
                    through(self.get(inner));
                    id = inner;
                }
                _ => return Some(field),
            }
        }
    }

    /// Where a JSON name is among the names of a type, below 128.
    pub(crate) fn position(&self, id: TypeId, name: &str) -> Option<usize> {
        self.get(id).names.binary_search_by(|(known, _)| (*known).cmp(name)).ok()
    }

    /// The field at a position, telling `through` about every inlined type on the way.
    pub(crate) fn at_position<'s>(
        &'s self,
        id: TypeId,
        position: usize,
        through: impl FnMut(&'s Type),
    ) -> Option<&'s Field> {
        let (name, _) = self.get(id).names.get(position)?;
        self.field_through(id, name, through)
    }

    /// All fields as JSON shows them: inlined ones in place, sorted by name.
    pub fn fields(&self, id: TypeId) -> impl Iterator<Item = &Field> + '_ {
        self.get(id).names.iter().filter_map(move |(name, _)| self.field(id, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: (&str, &str, &str), path: &str) -> &'static Field {
        let schema = Schema::published();
        let mut id = schema.kind(kind.0, kind.1, kind.2).expect("kind");
        let mut last = None;
        for name in path.split('.') {
            let field = schema.field(id, name).unwrap_or_else(|| panic!("no field {name} in {path}"));
            if let Kind::Type(next) = field.kind {
                id = next;
            }
            last = Some(field);
        }
        last.expect("a path has a field")
    }

    #[test]
    fn fields_carry_what_patches_and_apply_need() {
        let ports = field(("", "v1", "Pod"), "spec.containers.ports");
        assert_eq!((ports.patch_merge_key, ports.patch_merges()), ("containerPort", true));
        assert_eq!((ports.list_type, &*ports.list_keys), (ListType::Map, &["containerPort", "protocol"][..]));
        let protocol = field(("", "v1", "Pod"), "spec.containers.ports.protocol");
        assert_eq!(protocol.default, Some(Value::from("TCP")));
        let inline = field(("", "v1", "Pod"), "spec.containers.livenessProbe.httpGet.port");
        assert!(
            matches!(inline.kind, Kind::Type(id) if Schema::published().get(id).shape == Shape::IntOrString)
        );
        assert!(field(("apps", "v1", "Deployment"), "spec.strategy").patch_retains_keys());
        assert_eq!(field(("", "v1", "Pod"), "spec.nodeSelector").atomic_here, Some(true));
        assert_eq!(field(("", "v1", "PersistentVolume"), "spec.claimRef").atomic_here, Some(false));
        assert_eq!(field(("", "v1", "Secret"), "data").many, Many::Map);
        assert_eq!(field(("", "v1", "Secret"), "data").kind, Kind::Bytes);
    }

    #[test]
    fn options_exist_in_every_group_and_other_kinds_do_not() {
        let schema = Schema::published();
        assert_eq!(schema.kind("apps", "v1", "DeleteOptions"), schema.kind("", "v1", "DeleteOptions"));
        assert!(schema.kind("", "v1", "DeleteOptions").is_some());
        assert_eq!(schema.kind("apps", "v1", "Pod"), None);
        for (group, kind) in [
            ("autoscaling", "Scale"),
            ("policy", "Eviction"),
            ("authentication.k8s.io", "TokenRequest"),
            ("", "Status"),
            ("meta.k8s.io", "Table"),
            ("meta.k8s.io", "PartialObjectMetadataList"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("apiregistration.k8s.io", "APIService"),
        ] {
            assert!(schema.kind(group, "v1", kind).is_some(), "{group} {kind}");
        }
    }
}
