//! What the tables of plugins share: a request as the server makes it.

use crate::testing::NOW;
use api::{Admission, AdmissionRequest, Lookup, Operation, Resource, Status, UserInfo};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One request.
pub(super) struct Case<'a> {
    pub(super) operation: Operation,
    pub(super) group: &'a str,
    pub(super) plural: &'a str,
    pub(super) subresource: &'a str,
    pub(super) kind: Option<(&'a str, &'a str, &'a str)>,
    pub(super) old: Option<Value>,
    pub(super) dry_run: bool,
}

/// What a plugin made of a request.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// A POST of a core resource.
pub(super) fn create(plural: &str) -> Case<'_> {
    create_in("", plural)
}

/// A POST.
pub(super) fn create_in<'a>(group: &'a str, plural: &'a str) -> Case<'a> {
    Case {
        operation: Operation::Create,
        group,
        plural,
        subresource: "",
        kind: None,
        old: None,
        dry_run: false,
    }
}

/// A PUT of a core resource, or of a part of it.
pub(super) fn update<'a>(plural: &'a str, subresource: &'a str, old: &Value) -> Case<'a> {
    let old = Some(old.clone());
    Case { operation: Operation::Update, subresource, old, ..create(plural) }
}

/// The row of a built-in resource.
pub(super) fn row(group: &str, plural: &str) -> Resource {
    crate::all().into_iter().find(|row| row.group == group && row.plural == plural).unwrap()
}

impl Case<'_> {
    /// Runs both halves of the plugin, in namespace `n` where the resource has one.
    pub(super) fn run(
        &self,
        plugin: &dyn Admission,
        object: Value,
        lookup: &dyn Lookup,
    ) -> Result<Admitted, Status> {
        let row = row(self.group, self.plural);
        let user = UserInfo { name: "somebody".to_owned(), ..UserInfo::default() };
        let named = if object.is_null() { self.old.clone().unwrap_or_default() } else { object.clone() };
        let name = named["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let options = json!({});
        let mut request = AdmissionRequest {
            operation: self.operation,
            resource: &row,
            subresource: self.subresource,
            kind: self.kind.unwrap_or((&row.group, &row.version, &row.kind)),
            namespace: if row.is_namespaced() { "n" } else { "" },
            name: &name,
            object,
            old: self.old.as_ref(),
            options: &options,
            user: &user,
            dry_run: self.dry_run,
            lookup,
            now: NOW.parse().unwrap(),
            warnings: Vec::new(),
            annotations: BTreeMap::new(),
            reinvocation: Default::default(),
        };
        if plugin.handles(self.operation) {
            plugin.mutate(&mut request)?;
            plugin.validate(&mut request)?;
        }
        Ok(Admitted { object: request.object, warnings: request.warnings, annotations: request.annotations })
    }

    /// Expects the object to be admitted as `expect`.
    #[track_caller]
    pub(super) fn admits(
        &self,
        plugin: &dyn Admission,
        object: Value,
        lookup: &dyn Lookup,
        pointer: &str,
        expect: Value,
    ) {
        let admitted = self.run(plugin, object, lookup).map_err(|status| status.message).unwrap();
        let found = admitted.object.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(found, expect, "{}", admitted.object);
    }

    /// Expects a refusal.
    #[track_caller]
    pub(super) fn refuses(
        &self,
        plugin: &dyn Admission,
        object: Value,
        lookup: &dyn Lookup,
        code: u16,
        message: &str,
    ) {
        let status = self.run(plugin, object, lookup).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
}
