//! The verbs. They know rows, never kinds.

pub(crate) mod apply;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod part;
pub(crate) mod patch;
pub(crate) mod selection;
pub(crate) mod subresource;
pub(crate) mod update;
pub(crate) mod watch;

use crate::Body;
use crate::codec::negotiate::{Media, Wanted};
use crate::codec::reply::Reply;
use crate::codec::{body, json, wire};
use crate::hooks::Identity;
use crate::options::WriteOptions;
use crate::path::{Query, Target};
use crate::registry::Entry;
use crate::server::Server;
use crate::storage::WriteError;
use crate::watch_cache::{Item, WatchCache};
use api::apply::{Set, Types, Writer};
use api::decode::{Decoded, FieldValidation};
use api::resource::Subresource;
use api::{AdmissionRequest, Context, FieldErrors, Object, ObjectName, Operation, Status, Timestamp};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Expect;

/// What a request leaves for its answer's head and for audit.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) warnings: Vec<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) request_object: Option<Bytes>,
    pub(crate) response_object: Option<Bytes>,
}

impl Notes {
    /// Adds an annotation for audit.
    pub(crate) fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(key.to_owned(), value.to_owned());
    }
}

/// Warnings that an answer carries; more would not fit a header section.
const WARNINGS_MAX: usize = 32;

/// One request to a row, authorised.
pub(crate) struct Scope {
    pub(crate) server: Arc<Server>,
    pub(crate) entry: Entry,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) identity: Identity,
    pub(crate) headers: HeaderMap,
    pub(crate) wanted: Wanted,
    pub(crate) now: Timestamp,
    pub(crate) notes: Arc<Mutex<Notes>>,
}

impl Scope {
    /// The row's cache.
    pub(crate) fn cache(&self) -> Result<&Arc<WatchCache>, Status> {
        self.entry.cache.as_ref().ok_or_else(Status::no_such_path)
    }

    /// The namespace of objects: empty for cluster-scoped rows.
    pub(crate) fn namespace(&self) -> &str {
        match self.entry.resource.is_namespaced() {
            true => &self.target.namespace,
            false => "",
        }
    }

    /// The object's name with its namespace.
    pub(crate) fn object_name(&self, name: &str) -> ObjectName {
        ObjectName::new(self.namespace(), name)
    }

    /// The object as it is.
    pub(crate) fn current(&self, name: &str) -> Result<Option<Arc<Item>>, Status> {
        Ok(self.cache()?.get(self.namespace(), name))
    }

    /// 404 for the object.
    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.entry.resource.id(), name)
    }

    /// What rules may know.
    pub(crate) fn context(&self, dry_run: bool) -> Context<'_> {
        Context {
            now: self.now,
            user: &self.identity.user,
            lookup: &**self.server.registry(),
            dry_run,
            subresource: &self.target.subresource,
        }
    }

    /// A request to admission about this row.
    pub(crate) fn admission<'a>(
        &'a self,
        operation: Operation,
        name: &'a str,
        object: Value,
        old: Option<&'a Value>,
        options: &'a Value,
        dry_run: bool,
    ) -> AdmissionRequest<'a> {
        let resource = &*self.entry.resource;
        AdmissionRequest {
            operation,
            resource,
            subresource: &self.target.subresource,
            kind: (&resource.group, &resource.version, &resource.kind),
            namespace: &self.target.namespace,
            name,
            object,
            old,
            options,
            user: &self.identity.user,
            dry_run,
            lookup: &**self.server.registry(),
            now: self.now,
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
            reinvocation: Default::default(),
        }
    }

    /// Keeps what admission said besides its verdict.
    pub(crate) fn note(&self, warnings: Vec<String>, annotations: BTreeMap<String, String>) {
        if warnings.is_empty() && annotations.is_empty() {
            return;
        }
        let mut notes = self.notes.lock();
        for warning in warnings {
            if notes.warnings.len() < WARNINGS_MAX && !notes.warnings.contains(&warning) {
                notes.warnings.push(warning);
            }
        }
        notes.annotations.extend(annotations);
    }

    /// The mutating half of admission. What it says is kept even where it refuses.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn admit(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let outcome = self.server.admit(request).await;
        self.note(std::mem::take(&mut request.warnings), std::mem::take(&mut request.annotations));
        outcome
    }

    /// The validating half of admission. What it says is kept even where it refuses.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let outcome = self.server.validate(request).await;
        self.note(std::mem::take(&mut request.warnings), std::mem::take(&mut request.annotations));
        outcome
    }

    /// Adds a warning to the answer.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        self.note(vec![warning.into()], BTreeMap::new());
    }

    /// 422 with what the rules found, if they found anything.
    pub(crate) fn refuse_invalid(&self, name: &str, errors: FieldErrors) -> Result<(), Status> {
        let resource = &self.entry.resource;
        match errors.is_empty() {
            true => Ok(()),
            false => Err(Status::invalid(&resource.group, &resource.kind, name, errors)),
        }
    }

    /// The client's name for managed fields.
    pub(crate) fn field_manager(&self, options: &WriteOptions) -> String {
        if !options.field_manager.is_empty() {
            return options.field_manager.clone();
        }
        let agent = self.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok());
        let name = agent.unwrap_or("unknown").split('/').next().unwrap_or("");
        name.chars().take(FIELD_MANAGER_CHARS_MAX).collect()
    }

    /// Reads the body as an object of this row (or of the subresource's kind), checks its kind, and completes it by its
    /// defaults.
    pub(crate) async fn read_object(
        &self,
        body: Body,
        validation: FieldValidation,
        kind: (&str, &str),
    ) -> Result<Value, Status> {
        let media = wire::media_of(body::media_type(&self.headers))?;
        let bytes = body::read(body, body::BODY_BYTES_MAX).await?;
        let mut decoded = wire::read(media, &bytes, kind.0, kind.1)?;
        expect_kind(&mut decoded.value, kind.0, kind.1)?;
        self.notes.lock().request_object = Some(match media {
            Media::Json => bytes,
            _ => decoded.value.to_string().into(),
        });
        self.check_fields(decoded, validation)
    }

    /// Acts on fields that the row's kind does not know, as the client asks.
    pub(crate) fn check_fields(
        &self,
        mut decoded: Decoded,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        decoded.strict_errors.extend(self.entry.resource.strategy.prune(&mut decoded.value));
        let (value, warnings) = decoded.check(validation).map_err(|mut status| {
            let resource = &self.entry.resource;
            status.message = format!(
                "{kind} in version \"{}\" cannot be handled as a {kind}: {}",
                resource.version,
                status.message,
                kind = resource.kind
            );
            status
        })?;
        self.note(warnings, BTreeMap::new());
        Ok(value)
    }
}

/// Characters of a user agent that name a field manager.
const FIELD_MANAGER_CHARS_MAX: usize = 128;

/// Checks that a body is of this kind, or makes it so where it does not say.
pub(crate) fn expect_kind(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Status> {
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct",
            json_type(object)
        )));
    };
    for (field, expect) in [("apiVersion", api_version), ("kind", kind)] {
        let found = map.get(field).and_then(Value::as_str).unwrap_or("");
        if found.is_empty() {
            map.insert(field.to_owned(), expect.into());
            continue;
        }
        if found != expect {
            return Err(Status::bad_request(match field {
                "apiVersion" => format!(
                    "the API version in the data ({found}) does not match the expected API version ({expect})"
                ),
                _ => format!(
                    "{kind} in version \"{api_version}\" cannot be handled as a {found}: the object provided is unrecognized (must be of type {kind})"
                ),
            }));
        }
    }
    Ok(())
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The subresource that a request names.
pub(crate) fn find_subresource<'a>(entry: &'a Entry, name: &str) -> Option<&'a Subresource> {
    entry.resource.subresources.iter().find(|subresource| subresource.name == name)
}

/// An object as a value.
pub(crate) fn value_of(object: &Object) -> Result<Value, Status> {
    object.decode().map_err(Status::internal)
}

/// What a write left.
pub(crate) enum Written {
    /// The version that was written, as the row shows it.
    Object(Arc<Object>),
    /// A version that was not written (dry run), or a part of one.
    Value(Value),
}

impl Written {
    /// As an answer.
    pub(crate) fn reply(self, code: u16) -> Reply {
        match self {
            Self::Object(object) => Reply::Object { code, object },
            Self::Value(value) => Reply::Value { code, value },
        }
    }

    /// The object.
    pub(crate) fn into_value(self) -> Result<Value, Status> {
        match self {
            Self::Object(object) => value_of(&object),
            Self::Value(value) => Ok(value),
        }
    }

    /// The revision of the version that was written.
    pub(crate) fn revision(&self) -> Option<u64> {
        match self {
            Self::Object(object) => Some(object.meta.resource_version),
            Self::Value(_) => None,
        }
    }
}

impl Scope {
    /// Writes an object's bytes, or removes it, and shows what is there then: after a removal nothing but its revision.
    pub(crate) async fn write(
        &self,
        key: &ObjectName,
        expect: Expect,
        kept: Option<Bytes>,
        may_lose: bool,
    ) -> Result<Written, WriteError> {
        let cache = self.cache()?;
        let storage = self.server.registry().storage();
        let revision = storage.write(cache, key, expect, kept.clone(), may_lose).await?;
        let Some(kept) = kept else { return Ok(Written::Value(Value::Null)) };
        let cached = cache.get(&key.namespace, &key.name);
        let object = match cached.filter(|item| item.object.meta.resource_version == revision) {
            Some(item) => self.entry.present(&item).await?,
            // Somebody was faster than this task: the answer is about this write all the same.
            None => {
                let json = json::published(&kept, revision)
                    .ok_or_else(|| Status::internal("an object without metadata was written"))?;
                self.entry.present_json(json).await?
            }
        };
        Ok(Written::Object(object))
    }

    /// Works out `managedFields` of a write that is no apply.
    pub(crate) fn track_managers(
        &self,
        mut object: Value,
        old: Option<&Value>,
        options: &WriteOptions,
    ) -> Value {
        let manager = self.field_manager(options);
        let reset = self.fields_left_alone(&object, old);
        api::apply::update(old, &mut object, self.writer(&manager, &reset));
        object
    }

    /// Who writes, as `managedFields` tell it.
    pub(crate) fn writer<'a>(&'a self, manager: &'a str, reset: &'a Set) -> Writer<'a> {
        let resource = &self.entry.resource;
        let types = match api::apply::published(&self.entry.api_version, &resource.kind) {
            Some(id) => Types::Published(id),
            None => match resource.strategy.schemas() {
                [] => Types::Unknown,
                schemas => Types::Custom(schemas),
            },
        };
        Writer {
            manager,
            api_version: &self.entry.api_version,
            kind: &resource.kind,
            subresource: &self.target.subresource,
            now: self.now,
            types,
            reset,
        }
    }

    /// Fields that this request does not write whatever its body says. Upstream: `GetResetFields` of the strategies.
    pub(crate) fn fields_left_alone(&self, object: &Value, old: Option<&Value>) -> Set {
        match self.target.subresource.as_str() {
            "status" => {
                let maps = [Some(object), old].into_iter().flatten().filter_map(Value::as_object);
                let others: Vec<[&str; 1]> = maps
                    .flat_map(serde_json::Map::keys)
                    .filter(|key| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
                    .map(|key| [key.as_str()])
                    .collect();
                Set::of_fields(&others.iter().map(<[&str; 1]>::as_slice).collect::<Vec<_>>())
            }
            _ if self.entry.resource.has_status => Set::of_fields(&[&["status"]]),
            _ => Set::default(),
        }
    }
}
