//! `Resource`: the row of the table that says all about one resource. Built-in, Knative and custom kinds alike.

use crate::json_path::JsonPath;
use crate::status::ResourceId;
use crate::strategy::DynStrategy;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In none.
    Cluster,
}

/// The verbs a resource or subresource serves, as discovery lists them.
pub type Verbs = &'static [&'static str];

/// What a stored resource serves.
pub const VERBS_ALL: Verbs =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// What a review serves.
pub const VERBS_CREATE: Verbs = &["create"];
/// What a subresource that is part of its object serves.
pub const VERBS_PART: Verbs = &["get", "patch", "update"];

/// One row of the resource table.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for core.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `Pod`.
    pub kind: String,
    /// Such as `pods`; what the URL says.
    pub plural: String,
    /// Such as `pod`.
    pub singular: String,
    /// Such as `PodList`.
    pub list_kind: String,
    /// Namespaced or not.
    pub scope: Scope,
    /// Such as `po`.
    pub short_names: Vec<String>,
    /// Such as `all`.
    pub categories: Vec<String>,
    /// What is served.
    pub verbs: Verbs,
    /// Columns of `kubectl get`, after the name. (Where one of them is itself called `Name`, none is put before them.)
    pub columns: Vec<Column>,
    /// Fields that field selectors may name beyond `metadata.name` and `metadata.namespace`.
    pub fields: Vec<Field>,
    /// Subresources by name.
    pub subresources: Vec<Subresource>,
    /// Where objects are kept. Versions and groups that share a home show the same objects.
    pub home: Home,
    /// Whether the object has a `status` that its own writes must not change (a `status` subresource exists).
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the spec.
    pub has_generation: bool,
    /// Whether every answer warns that this version should not be used any more, and how.
    pub deprecation: Option<String>,
    /// The rules.
    pub strategy: Arc<dyn DynStrategy>,
}

/// Where the objects of a resource are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// In the store, under `/registry/GROUP/PLURAL/`, in the version whose row names itself here.
    Stored {
        /// Group part of the key.
        group: String,
        /// Plural part of the key.
        plural: String,
        /// Version in which bytes are kept. Rows of other versions convert (`DynStrategy::from_stored`).
        version: String,
    },
    /// Nowhere: `create` computes an answer (reviews). The name selects the handler in the API server.
    Computed,
}

/// A column of a Table.
#[derive(Clone)]
pub struct Column {
    /// Heading.
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`, `boolean`, `number`.
    pub kind: Cow<'static, str>,
    /// OpenAPI format of the type, such as `int64`; mostly empty.
    pub format: Cow<'static, str>,
    /// For people.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// The value.
    pub cell: Cell,
}

/// How a cell is filled.
#[derive(Clone)]
pub enum Cell {
    /// The object's name. A row without such a column shows it first.
    Name,
    /// The value at a JSON pointer.
    Pointer(String),
    /// The value at a JSON pointer, or this one where there is none.
    PointerOr(String, Value),
    /// The age since a timestamp at a JSON pointer, in kubectl's short form.
    AgeAt(String),
    /// Computed from the object; `now` is the second argument.
    Compute(fn(&Value, jiff::Timestamp) -> Value),
    /// What a path finds first, as the column's type wants it. Upstream: apiextensions-apiserver `tableconvertor`.
    Path(JsonPath),
}

impl Column {
    /// A cell shown as a string.
    pub fn filled(name: impl Into<Cow<'static, str>>, cell: Cell) -> Self {
        Self {
            name: name.into(),
            kind: "string".into(),
            format: "".into(),
            description: "".into(),
            priority: 0,
            cell,
        }
    }

    /// The value at a JSON pointer, shown as a string.
    pub fn new(name: &'static str, pointer: &str) -> Self {
        Self::filled(name, Cell::Pointer(pointer.to_owned()))
    }

    /// The object's name at another place than the first.
    pub fn object_name() -> Self {
        Self::filled("Name", Cell::Name)
    }

    /// The integer at a JSON pointer; 0 where there is none.
    pub fn number(name: &'static str, pointer: &str) -> Self {
        Self::or(name, pointer, 0).kind("integer")
    }

    /// The value at a JSON pointer, or another one where there is none, shown as a string.
    pub fn or(name: &'static str, pointer: &str, missing: impl Into<Value>) -> Self {
        Self::filled(name, Cell::PointerOr(pointer.to_owned(), missing.into()))
    }

    /// A computed value, shown as a string.
    pub fn computed(name: &'static str, cell: fn(&Value, jiff::Timestamp) -> Value) -> Self {
        Self::filled(name, Cell::Compute(cell))
    }

    /// The age since creation.
    pub fn age() -> Self {
        Self::filled("Age", Cell::AgeAt("/metadata/creationTimestamp".to_owned()))
    }

    /// With another type.
    pub fn kind(mut self, kind: &'static str) -> Self {
        self.kind = kind.into();
        self
    }

    /// Shown with `-o wide` only.
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// A field that field selectors may name.
#[derive(Clone, Debug)]
pub struct Field {
    /// As selectors spell it, `spec.nodeName`.
    pub name: String,
    /// Where the value is, `/spec/nodeName`.
    pub pointer: String,
    /// Where it is if there is nothing (or nothing but an empty text) at `pointer`.
    pub or_pointer: Option<&'static str>,
    /// What a missing value counts as.
    pub missing: &'static str,
}

impl Field {
    /// A dotted path that is its own name; missing counts as empty.
    pub fn new(name: &str) -> Self {
        Self::at(name, &format!("/{}", name.replace('.', "/")))
    }

    /// A name for the value at a JSON pointer; missing counts as empty.
    pub fn at(name: &str, pointer: &str) -> Self {
        Self { name: name.to_owned(), pointer: pointer.to_owned(), or_pointer: None, missing: "" }
    }

    /// Another place to look where there is nothing at the first.
    pub fn or(mut self, pointer: &'static str) -> Self {
        self.or_pointer = Some(pointer);
        self
    }

    /// What a missing value counts as.
    pub fn missing(mut self, text: &'static str) -> Self {
        self.missing = text;
        self
    }
}

/// A subresource of a resource.
#[derive(Clone)]
pub struct Subresource {
    /// As the URL says it.
    pub name: &'static str,
    /// What it serves.
    pub verbs: Verbs,
    /// Group, version and kind of its body where that is not the object itself (`Scale`, `Eviction`, `TokenRequest`, …).
    pub body: Option<(&'static str, &'static str, &'static str)>,
    /// What it does.
    pub action: Action,
}

/// What a subresource does.
#[derive(Clone)]
pub enum Action {
    /// Writes `status` and nothing else of the object (and of its metadata what upstream allows).
    Status,
    /// Reads and writes a part of the object under rules of its own (`ephemeralcontainers`, `resize`, `approval`, `finalize`).
    Part(Arc<dyn DynStrategy>),
    /// `autoscaling/v1` Scale over these JSON pointers.
    Scale {
        /// Where the wanted count is.
        spec_replicas: String,
        /// Where the present count is.
        status_replicas: String,
        /// Where a label selector object or text is, if there is one.
        selector: Option<String>,
    },
    /// A POST that does something (`binding`, `eviction`, `token`); the name selects the handler in the API server.
    Create,
    /// A stream to the node or the object (`log`, `exec`, `attach`, `portforward`, `proxy`).
    Connect,
}

impl Resource {
    /// A row with everything derived from the names, all verbs, kept in the store in its own version, the age as its only
    /// column and no rules but those of the schema.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str, scope: Scope) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            list_kind: format!("{kind}List"),
            scope,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: VERBS_ALL,
            columns: vec![Column::age()],
            fields: Vec::new(),
            subresources: Vec::new(),
            home: Home::Stored {
                group: group.to_owned(),
                plural: plural.to_owned(),
                version: version.to_owned(),
            },
            has_status: false,
            has_generation: false,
            deprecation: None,
            strategy: Arc::new(crate::strategy::Thin),
        }
    }

    /// With these rules.
    pub fn rules(mut self, strategy: impl DynStrategy + 'static) -> Self {
        self.strategy = Arc::new(strategy);
        self
    }

    /// With these short names.
    pub fn short_names(mut self, names: &[&str]) -> Self {
        self.short_names = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// In these categories.
    pub fn categories(mut self, names: &[&str]) -> Self {
        self.categories = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// With these columns.
    pub fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// With these selectable fields.
    pub fn fields(mut self, fields: Vec<Field>) -> Self {
        self.fields = fields;
        self
    }

    /// With a `status` subresource, and without `generation`.
    pub fn status(mut self) -> Self {
        self.has_status = true;
        self.subresources.push(Subresource {
            name: "status",
            verbs: VERBS_PART,
            body: None,
            action: Action::Status,
        });
        self
    }

    /// Counting changes of the spec in `metadata.generation`.
    pub fn generation(mut self) -> Self {
        self.has_generation = true;
        self
    }

    /// With another subresource.
    pub fn subresource(mut self, subresource: Subresource) -> Self {
        self.subresources.push(subresource);
        self
    }

    /// With `scale` in the usual places (`/spec/replicas`, `/status/replicas`).
    pub fn scale(self, selector: Option<&str>) -> Self {
        self.subresource(Subresource {
            name: "scale",
            verbs: VERBS_PART,
            body: Some(("autoscaling", "v1", "Scale")),
            action: Action::Scale {
                spec_replicas: "/spec/replicas".to_owned(),
                status_replicas: "/status/replicas".to_owned(),
                selector: selector.map(str::to_owned),
            },
        })
    }

    /// Computed, not stored: a review.
    pub fn computed(mut self) -> Self {
        self.home = Home::Computed;
        self.verbs = VERBS_CREATE;
        self
    }

    /// Sharing the objects of another group, plural and version.
    pub fn shares(mut self, group: &str, plural: &str, version: &str) -> Self {
        self.home =
            Home::Stored { group: group.to_owned(), plural: plural.to_owned(), version: version.to_owned() };
        self
    }

    /// Group and plural, as errors name it.
    pub fn id(&self) -> ResourceId<'_> {
        ResourceId { group: &self.group, plural: &self.plural }
    }

    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Whether objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.plural)
    }
}
