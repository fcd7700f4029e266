//! What the tables of rules share: objects in memory, and a write as the pipeline does it.

use api::{Context, FieldErrors, Lookup, Object, Resource, UserInfo};
use serde_json::{Value, json};
use std::sync::Arc;

/// Now, in tests.
pub(crate) const NOW: &str = "2026-01-01T00:00:00Z";

/// Objects by group and plural.
#[derive(Default)]
pub(crate) struct Objects(Vec<(String, String, Arc<Object>)>);

impl Objects {
    pub(crate) fn with(mut self, group: &str, plural: &str, object: Value) -> Self {
        let object = Object::parse(serde_json::to_vec(&object).unwrap().into()).unwrap();
        self.0.push((group.to_owned(), plural.to_owned(), Arc::new(object)));
        self
    }
}

impl Lookup for Objects {
    fn get(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.list(group, plural, namespace)
            .into_iter()
            .find(|own| own.meta.namespace() == namespace && own.meta.name() == name)
    }

    fn list(&self, group: &str, plural: &str, namespace: &str) -> Vec<Arc<Object>> {
        let here = |own: &Object| namespace.is_empty() || own.meta.namespace() == namespace;
        let rows = self.0.iter().filter(|(g, p, own)| g == group && p == plural && here(own));
        rows.map(|(.., own)| own.clone()).collect()
    }
}

/// A refused write as texts: the status' message, or every field error.
fn texts(result: Result<(), api::Status>, errors: FieldErrors) -> Vec<String> {
    match result {
        Err(status) => vec![status.message],
        Ok(()) => errors.into_vec().iter().map(ToString::to_string).collect(),
    }
}

/// Runs `run` with a context over `lookup`.
pub(crate) fn with_context<R>(lookup: &dyn Lookup, run: impl FnOnce(&Context<'_>) -> R) -> R {
    let user = UserInfo { name: "somebody".to_owned(), ..UserInfo::default() };
    run(&Context { now: NOW.parse().unwrap(), user: &user, lookup, dry_run: false, subresource: "" })
}

/// Creates an object and returns it with its errors.
pub(crate) fn created(row: &Resource, object: Value, lookup: &dyn Lookup) -> (Value, Vec<String>) {
    let mut object = object;
    if object["metadata"].is_null() {
        object["metadata"] = json!({"name": "x", "namespace": "n"});
    }
    let mut errors = FieldErrors::default();
    let result = with_context(lookup, |cx| {
        row.strategy.default(&mut object)?;
        row.strategy.create(&mut object, &mut errors, cx).map(|_| ())
    });
    (object, texts(result, errors))
}

/// Creates an object and expects these errors.
#[track_caller]
pub(crate) fn check(row: &Resource, object: Value, expect: &[&str]) {
    let (_, errors) = created(row, object.clone(), &Objects::default());
    assert_eq!(errors, expect, "{object}");
}

/// Creates `old`, changes it and expects these errors.
#[track_caller]
pub(crate) fn check_update(row: &Resource, old: Value, change: impl FnOnce(&mut Value), expect: &[&str]) {
    let (old, errors) = created(row, old, &Objects::default());
    assert_eq!(errors, Vec::<String>::new(), "{old}");
    let mut new = old.clone();
    change(&mut new);
    let mut errors = FieldErrors::default();
    let result = with_context(&Objects::default(), |cx| {
        row.strategy.default(&mut new)?;
        row.strategy.update(&mut new, &old, &mut errors, cx).map(|_| ())
    });
    assert_eq!(texts(result, errors), expect, "{new}");
}

/// What creating `object` warns of.
pub(crate) fn warnings(row: &Resource, object: Value) -> Vec<String> {
    let mut object = object;
    with_context(&Objects::default(), |cx| {
        row.strategy.default(&mut object).unwrap();
        row.strategy.create(&mut object, &mut FieldErrors::default(), cx).unwrap().warnings
    })
}
