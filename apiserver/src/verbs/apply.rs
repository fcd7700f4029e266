//! Server-side apply. Upstream: `apiserver/pkg/endpoints/handlers/patch.go` (`applyPatcher`).

use super::Scope;
use super::part::Part;
use crate::codec::reply::Reply;
use crate::options::WriteOptions;
use api::Status;

/// Applies a configuration.
pub(crate) async fn apply(
    _scope: &Scope,
    _bytes: &[u8],
    _part: Part,
    _options: &WriteOptions,
) -> Result<Reply, Status> {
    Err(Status::failure(501, api::Reason::Unknown, "apply is not served yet"))
}
