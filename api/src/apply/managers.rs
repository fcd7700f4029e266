//! `metadata.managedFields`: who owns which fields. Upstream: apimachinery `pkg/util/managedfields/internal`.

use super::element::Element;
use super::set::Set;
use crate::status::{Cause, Details, Reason, Status};
use crate::time_text::{Precision, format_seconds, parse_time};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many entries of updates are kept apart; older ones are merged. Upstream: `DefaultMaxUpdateManagers`.
const UPDATE_MANAGERS_MAX: usize = 10;
/// Who owns what older updates changed.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// Who owns fields. What applies in several versions of a kind is one owner, what updates is one for each version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) manager: String,
    pub(super) is_apply: bool,
    /// Empty for apply.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

impl Owner {
    pub(super) fn new(manager: &str, is_apply: bool, api_version: &str, subresource: &str) -> Self {
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Self {
            manager: manager.to_owned(),
            is_apply,
            api_version: if is_apply { String::new() } else { api_version.to_owned() },
            subresource: subresource.to_owned(),
        }
    }

    /// As conflicts name it.
    fn text(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if !self.is_apply {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// What an owner owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) fields: Set,
    pub(super) api_version: String,
    /// Whether the last write was an apply.
    pub(super) is_apply: bool,
    /// Seconds since 1970.
    pub(super) time: Option<i64>,
}

/// All owners of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(pub(super) BTreeMap<Owner, Owned>);

impl Managers {
    /// Reads `managedFields`.
    pub(super) fn decode(entries: Option<&Value>) -> Result<Self, String> {
        let mut managers = Self::default();
        let entries = entries.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (index, entry) in entries.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let is_apply = match text("operation") {
                "Apply" => true,
                "Update" => false,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
            }
            let fields = match entry.get("fieldsV1") {
                None | Some(Value::Null) => Set::default(),
                Some(fields) => {
                    Set::decode(fields).map_err(|error| format!("error decoding set: {error}"))?
                }
            };
            let owner = Owner {
                manager: text("manager").to_owned(),
                is_apply,
                api_version: if is_apply { String::new() } else { api_version.to_owned() },
                subresource: text("subresource").to_owned(),
            };
            let time = parse_time(text("time"), Precision::Seconds).ok().map(|(seconds, _)| seconds);
            managers.0.insert(owner, Owned { fields, api_version: api_version.to_owned(), is_apply, time });
        }
        Ok(managers)
    }

    /// Writes `managedFields`: applies first, then by time.
    pub(super) fn encode(&self) -> Value {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(owner, owned)| {
            let seconds = owned.time.unwrap_or(0);
            (!owned.is_apply, seconds, &owner.manager, &owned.api_version, &owner.subresource)
        });
        let entry = |(owner, owned): (&Owner, &Owned)| {
            let mut entry = json!({
                "manager": owner.manager,
                "operation": if owned.is_apply { "Apply" } else { "Update" },
                "apiVersion": owned.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": owned.fields.encode(),
            });
            if owner.manager.is_empty() {
                entry.as_object_mut().map(|entry| entry.remove("manager"));
            }
            if let Some(time) = owned.time.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
                entry["time"] = format_seconds(time).into();
            }
            if !owner.subresource.is_empty() {
                entry["subresource"] = owner.subresource.as_str().into();
            }
            entry
        };
        Value::Array(entries.into_iter().map(entry).collect())
    }

    /// Merges the oldest updates until there are not too many.
    pub(super) fn cap(&mut self) {
        let mut updates: Vec<_> = self
            .0
            .iter()
            .filter(|(_, owned)| !owned.is_apply)
            .map(|(owner, owned)| (owned.time.unwrap_or(0), owner.clone()))
            .collect();
        if updates.len() <= UPDATE_MANAGERS_MAX {
            return;
        }
        updates.sort();
        let mut count = updates.len();
        let mut first_of: BTreeMap<String, Owner> = BTreeMap::new();
        for (_, owner) in updates {
            if count <= UPDATE_MANAGERS_MAX {
                return;
            }
            let Some(owned) = self.0.get(&owner).cloned() else { continue };
            let version = owned.api_version.clone();
            let Some(first) = first_of.get(&version) else {
                first_of.insert(version, owner);
                continue;
            };
            let bucket = Owner::new(ANCIENT_CHANGES, false, &version, "");
            if !self.0.contains_key(&bucket)
                && let Some(moved) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), moved);
            }
            self.0.remove(&owner);
            if let Some(merged) = self.0.get_mut(&bucket) {
                merged.fields = owned.fields.union(&merged.fields);
                merged.time = owned.time;
            }
            count -= 1;
        }
    }
}

/// Fields that others own and an apply would change.
#[derive(Clone, Debug, Default)]
pub(super) struct Conflicts(pub(super) Vec<(Owner, Vec<Element>)>);

fn path_text(path: &[Element]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl Conflicts {
    /// 409 with every conflict as a cause.
    pub(super) fn status(&self) -> Status {
        let causes = self.0.iter().map(|(owner, path)| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", owner.text()),
            field: path_text(path),
        });
        let message = match self.0.as_slice() {
            [(owner, path)] => {
                format!("Apply failed with 1 conflict: conflict with {}: {}", owner.text(), path_text(path))
            }
            many => {
                let mut lines = Vec::new();
                let mut last = None;
                for (owner, path) in many {
                    if last != Some(owner) {
                        lines.push(format!("conflicts with {}:", owner.text()));
                    }
                    last = Some(owner);
                    lines.push(format!("- {}", path_text(path)));
                }
                format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
            }
        };
        let mut status = Status::failure(409, Reason::Conflict, message);
        status.details = Some(Box::new(Details { causes: causes.collect(), ..Details::default() }));
        status
    }
}
