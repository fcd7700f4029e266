//! What apply must know about a place in an object, from the schema table or from the schema of a custom resource.
//! Upstream: kube-openapi `pkg/schemaconv`, structured-merge-diff `schema`.

use crate::schema::{Field, Kind, ListType, Many, Schema, Shape, TypeId};
use crate::structural::{Additional, Structural};
use serde_json::Value;

/// A place in an object.
#[derive(Clone, Copy, Debug)]
pub enum Place<'s> {
    /// A value of a published type, and whether it is atomic here, where the field says so.
    Type(TypeId, Option<bool>),
    /// One value of a scalar kind.
    Scalar(Kind),
    /// What a published field holds.
    Field(&'static Field),
    /// A list that is replaced as a whole.
    AtomicList(Kind),
    /// A node of a custom schema. The flags say whether unknown fields are kept here, and whether it is a whole object.
    Structural(&'s Structural, bool, bool),
    /// Anything; objects merge by field, lists are replaced.
    Deduced,
    /// Anything, replaced as a whole.
    Untyped,
}

/// What a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Any,
}

/// How a list merges.
#[derive(Clone, Copy, Debug)]
pub(super) enum ListMerge<'s> {
    Atomic,
    Set,
    Keys(Keys<'s>),
}

/// The fields that tell elements apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keys<'s> {
    Published(&'static [&'static str]),
    Custom(&'s [String]),
}

impl<'s> Keys<'s> {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Published(keys) => keys.len(),
            Self::Custom(keys) => keys.len(),
        }
    }

    pub(super) fn get(self, index: usize) -> &'s str {
        match self {
            Self::Published(keys) => keys[index],
            Self::Custom(keys) => &keys[index],
        }
    }
}

/// A list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<'s> {
    pub(super) merge: ListMerge<'s>,
    pub(super) element: Place<'s>,
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object<'s> {
    pub(super) atomic: bool,
    fields: Fields<'s>,
    /// What other keys hold; `None` if there may be none.
    pub(super) element: Option<Place<'s>>,
}

#[derive(Clone, Copy, Debug)]
enum Fields<'s> {
    None,
    Type(TypeId),
    Structural(&'s Structural, bool, bool),
}

/// All that a place may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Atom<'s> {
    pub(super) scalar: Option<Scalar>,
    pub(super) list: Option<List<'s>>,
    pub(super) object: Option<Object<'s>>,
}

/// What an atom is taken for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form<'s> {
    Object(Object<'s>),
    Scalar(Scalar),
    List(List<'s>),
}

/// The name of a form, to tell whether two values have the same.
pub(super) fn same_form(left: &Form<'_>, right: &Form<'_>) -> bool {
    std::mem::discriminant(left) == std::mem::discriminant(right)
}

impl<'s> Atom<'s> {
    fn scalar(scalar: Scalar) -> Self {
        Self { scalar: Some(scalar), ..Self::default() }
    }

    fn list(merge: ListMerge<'s>, element: Place<'s>) -> Self {
        Self { list: Some(List { merge, element }), ..Self::default() }
    }

    fn object(atomic: bool, fields: Fields<'s>, element: Option<Place<'s>>) -> Self {
        Self { object: Some(Object { atomic, fields, element }), ..Self::default() }
    }

    /// What a value is here: what it looks like if that is allowed, else the first thing that is.
    pub(super) fn form(&self, value: Option<&Value>) -> Option<Form<'s>> {
        let fits = match value {
            None | Some(Value::Null) => None,
            Some(Value::Array(_)) => self.list.map(Form::List),
            Some(Value::Object(_)) => self.object.map(Form::Object),
            Some(_) => self.scalar.map(Form::Scalar),
        };
        fits.or_else(|| {
            self.object.map(Form::Object).or(self.scalar.map(Form::Scalar)).or(self.list.map(Form::List))
        })
    }
}

/// The type of `metadata`.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// `RawExtension`: replaced as a whole.
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

fn of_kind(kind: Kind) -> Place<'static> {
    match kind {
        Kind::Type(id) => Place::Type(id, None),
        other => Place::Scalar(other),
    }
}

impl<'s> Place<'s> {
    /// The root of an object of a custom resource.
    pub fn custom(schema: &'s Structural) -> Self {
        Self::Structural(schema, false, true)
    }

    pub(super) fn atom(self) -> Atom<'s> {
        match self {
            Self::Type(id, atomic) => of_type(id, atomic),
            Self::Scalar(kind) => match kind {
                Kind::String | Kind::Bytes => Atom::scalar(Scalar::String),
                Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Double => Atom::scalar(Scalar::Numeric),
                Kind::Bool => Atom::scalar(Scalar::Boolean),
                Kind::Any | Kind::Type(_) => Self::Deduced.atom(),
            },
            Self::Field(field) => of_field(field),
            Self::AtomicList(kind) => Atom::list(ListMerge::Atomic, of_kind(kind)),
            Self::Structural(schema, preserves, is_root) => of_structural(schema, preserves, is_root),
            Self::Deduced => Atom {
                scalar: Some(Scalar::Any),
                list: Some(List { merge: ListMerge::Atomic, element: Self::Untyped }),
                object: Some(Object { atomic: false, fields: Fields::None, element: Some(Self::Deduced) }),
            },
            Self::Untyped => Atom {
                scalar: Some(Scalar::Any),
                list: Some(List { merge: ListMerge::Atomic, element: Self::Untyped }),
                object: Some(Object { atomic: true, fields: Fields::None, element: Some(Self::Untyped) }),
            },
        }
    }

    /// Whether nothing is known of the fields here: such places are left alone when a schema changes.
    pub(super) fn is_deduced_object(object: &Object<'_>) -> bool {
        matches!(object.element, Some(Place::Deduced | Place::Scalar(Kind::Any)))
            && matches!(object.fields, Fields::None)
    }
}

fn of_type<'s>(id: TypeId, atomic_here: Option<bool>) -> Atom<'s> {
    let found = Schema::published().get(id);
    match found.shape {
        Shape::Struct => {
            // Upstream's description of a struct without fields says nothing about what is in it.
            let element = found.fields.is_empty().then_some(Place::Deduced);
            Atom::object(atomic_here.unwrap_or(found.atomic), Fields::Type(id), element)
        }
        Shape::List => Atom::list(ListMerge::Atomic, of_kind(found.fields[0].kind)),
        Shape::Quantity | Shape::Time | Shape::MicroTime | Shape::IntOrString => Atom::scalar(Scalar::Any),
        Shape::Duration => Atom::scalar(Scalar::String),
        Shape::Raw if found.name == RAW_EXTENSION => Place::Untyped.atom(),
        Shape::Raw | Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => {
            Place::Deduced.atom()
        }
    }
}

fn of_field<'s>(field: &'static Field) -> Atom<'s> {
    match (field.many, field.kind) {
        (Many::One, Kind::Type(id)) => of_type(id, field.atomic_here),
        (Many::One, kind) => of_kind(kind).atom(),
        (Many::List, kind) => {
            let merge = match field.list_type {
                ListType::Atomic => ListMerge::Atomic,
                ListType::Set => ListMerge::Set,
                ListType::Map => ListMerge::Keys(Keys::Published(&field.list_keys)),
            };
            Atom::list(merge, of_kind(kind))
        }
        (Many::Map, kind) => {
            Atom::object(field.atomic_here.unwrap_or(false), Fields::None, Some(of_kind(kind)))
        }
        (Many::MapOfLists, kind) => {
            Atom::object(field.atomic_here.unwrap_or(false), Fields::None, Some(Place::AtomicList(kind)))
        }
    }
}

fn of_structural(schema: &Structural, preserves: bool, is_root: bool) -> Atom<'_> {
    let preserves = preserves || schema.preserve_unknown_fields;
    if schema.int_or_string {
        return Atom::scalar(Scalar::Any);
    }
    let list = || {
        let merge = match schema.list_type.as_deref() {
            Some("set") => ListMerge::Set,
            Some("map") => ListMerge::Keys(Keys::Custom(&schema.list_map_keys)),
            _ => ListMerge::Atomic,
        };
        let element = schema
            .items
            .as_deref()
            .map_or(Place::Untyped, |items| Place::Structural(items, preserves, false));
        List { merge, element }
    };
    let object = || {
        let is_whole = is_root || schema.embedded_resource;
        let element = match &schema.additional {
            Additional::Schema(inner) => Some(Place::Structural(inner, preserves, false)),
            Additional::Allowed(true) => Some(Place::Deduced),
            Additional::Allowed(false) => None,
            Additional::Unset => {
                (preserves || schema.properties.is_empty() && !is_whole).then_some(Place::Deduced)
            }
        };
        let atomic = schema.map_type.as_deref() == Some("atomic");
        Object { atomic, fields: Fields::Structural(schema, preserves, is_whole), element }
    };
    match schema.kind.as_str() {
        "object" => Atom { object: Some(object()), ..Atom::default() },
        "array" => Atom { list: Some(list()), ..Atom::default() },
        "integer" | "number" => Atom::scalar(Scalar::Numeric),
        "boolean" => Atom::scalar(Scalar::Boolean),
        "string" => Atom::scalar(if matches!(schema.format.as_str(), "" | "byte") {
            Scalar::String
        } else {
            Scalar::Any
        }),
        _ => Atom { scalar: Some(Scalar::Any), list: Some(list()), object: Some(object()) },
    }
}

impl<'s> Object<'s> {
    /// A field that the schema names.
    pub(super) fn field(&self, name: &str) -> Option<Place<'s>> {
        match self.fields {
            Fields::None => None,
            Fields::Type(id) => Schema::published().field(id, name).map(Place::Field),
            Fields::Structural(schema, preserves, is_whole) => match name {
                "apiVersion" | "kind" if is_whole => Some(Place::Scalar(Kind::String)),
                "metadata" if is_whole => {
                    Schema::published().named(OBJECT_META).map(|id| Place::Type(id, None))
                }
                _ => schema.properties.get(name).map(|inner| Place::Structural(inner, preserves, false)),
            },
        }
    }

    /// A field, or what any other key holds.
    pub(super) fn entry(&self, name: &str) -> Option<Place<'s>> {
        self.field(name).or(self.element)
    }

    /// The default of a field that the schema names.
    pub(super) fn default(&self, name: &str) -> Option<&'s Value> {
        match self.fields {
            Fields::None => None,
            Fields::Type(id) => Schema::published().field(id, name)?.default.as_ref(),
            Fields::Structural(schema, ..) => schema.properties.get(name)?.default.as_ref(),
        }
    }
}
