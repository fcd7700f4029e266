//! Writing what loops have decided.

use crate::conditions::{Conditions, keep_times};
use crate::kinds::Observed;
use crate::object::{name_of, namespace_of};
use client::{Context, Error, gone_is_fine};
use serde_json::Value;

/// Writes the status if it is another one than before, together with the generation that it speaks of.
///
/// # Errors
/// Somebody else was faster, or the server refuses.
pub async fn status<K: Observed>(context: &Context, mut object: K, before: &Value) -> Result<(), Error> {
    let (meta, status) = object.parts();
    if let (Some(generation), true) = (meta.generation, status.is_object()) {
        status["observedGeneration"] = generation.into();
    }
    if let Some(map) = status.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    if status.is_object() {
        keep_times(before, status);
    }
    if status == before {
        return Ok(());
    }
    let api = context.client.namespaced::<K>(namespace_of(object.metadata()));
    Ok(gone_is_fine(api.replace_status(&object).await)?)
}

/// Looks at an object and writes what its status says then, also where looking failed. `None` for one that is gone or on its way out.
///
/// # Errors
/// What `look` says; else as [`status`].
pub async fn observe<K: Observed, T>(
    context: &Context,
    found: Option<K>,
    dependents: &'static [&'static str],
    look: impl AsyncFnOnce(&K, &mut Conditions<'_>) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let Some(mut object) = found.filter(|own| own.metadata().deletion_timestamp.is_none()) else {
        return Ok(None);
    };
    let before = object.parts().1.clone();
    let mut after = before.clone();
    let seen = look(&object, &mut Conditions::of(&mut after, dependents, context.now())).await;
    *object.parts().1 = after;
    status(context, object, &before).await?;
    seen.map(Some)
}

/// Creates an object that the cache does not show. `None` if it was there already: the cache will show it soon.
///
/// # Errors
/// The server refuses.
pub async fn create<K: client::Kind>(context: &Context, object: &K) -> Result<Option<K>, api::Status> {
    match context.client.namespaced::<K>(namespace_of(object.metadata())).create(object).await {
        Ok(made) => Ok(Some(made)),
        Err(status) if status.is_already_exists() => Ok(None),
        Err(status) => Err(status),
    }
}

/// As events name an object.
pub fn about<K: client::Kind>(object: &K) -> k8s_openapi::api::core::v1::ObjectReference {
    debug_assert!(!name_of(object.metadata()).is_empty());
    client::reference(object)
}
