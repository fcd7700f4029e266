//! GET of one object. Upstream: `apiserver/pkg/endpoints/handlers/get.go`.

use super::Scope;
use crate::codec::reply::Reply;
use api::Status;

/// The object as it is, at least as new as the client asks.
pub(crate) async fn get(scope: &Scope) -> Result<Reply, Status> {
    if let Some(revision) = scope.query.get("resourceVersion").and_then(|text| text.parse().ok()) {
        scope.server.registry().storage().at_least(revision).await?;
    }
    let name = &scope.target.name;
    let item = scope.current(name)?.ok_or_else(|| scope.not_found(name))?;
    Ok(Reply::Object { code: 200, object: scope.entry.present(&item).await? })
}
