//! Subresources that read and write a part of their object. The others are answered by handlers.

use super::part::Part;
use super::{Scope, patch, update, value_of};
use crate::Body;
use crate::codec::reply::Reply;
use api::Status;
use api::resource::Action;

/// The part that a subresource stands for; `None` for one that a handler answers.
pub(crate) fn part_of(action: &Action) -> Option<Part> {
    Some(match action {
        Action::Status => Part::Status,
        Action::Part(strategy) => Part::Own(strategy.clone()),
        Action::Scale { spec_replicas, status_replicas, selector } => Part::Scale {
            spec: spec_replicas.clone(),
            status: status_replicas.clone(),
            selector: selector.clone(),
        },
        Action::Create | Action::Connect => return None,
    })
}

/// Runs a verb on a part.
pub(crate) async fn serve(scope: &Scope, body: Body, part: Part) -> Result<Reply, Status> {
    match scope.target.verb {
        "get" => {
            let name = &scope.target.name;
            let item = scope.current(name)?.ok_or_else(|| scope.not_found(name))?;
            let object = scope.entry.present(&item).await?;
            match part.is_object() {
                true => Ok(Reply::Object { code: 200, object }),
                false => Ok(Reply::Value { code: 200, value: part.view(&value_of(&object)?) }),
            }
        }
        "update" => update::update(scope, body, part).await,
        "patch" => patch::patch(scope, body, part).await,
        _ => Err(crate::pipeline::not_allowed()),
    }
}
