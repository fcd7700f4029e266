//! A record as a line of JSON: `Event` of `audit.k8s.io/v1`. Upstream: `apiserver/pkg/apis/audit/v1`.

use crate::hooks::{AuditLevel, AuditRecord, AuditStage};
use api::{Status, UserInfo};
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    id: &'a str,
    stage: &'static str,
    #[serde(rename = "requestURI")]
    uri: &'a str,
    verb: &'a str,
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<ObjectRef<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<ResponseStatus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Box<RawValue>>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct User<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

impl<'a> From<&'a UserInfo> for User<'a> {
    fn from(user: &'a UserInfo) -> Self {
        Self { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    subresource: &'a str,
}

#[derive(Serialize)]
struct ResponseStatus<'a> {
    metadata: api::status::EmptyMeta,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a api::Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a api::status::Details>,
    code: u16,
}

impl<'a> ResponseStatus<'a> {
    fn of(code: u16, status: Option<&'a Status>) -> Self {
        Self {
            metadata: api::status::EmptyMeta::default(),
            status: status.map_or("", |status| &status.status),
            message: status.map_or("", |status| &status.message),
            reason: status.map(|status| &status.reason),
            details: status.and_then(|status| status.details.as_deref()),
            code,
        }
    }
}

/// With six digits, as upstream's `MicroTime`.
fn micro_time(time: jiff::Timestamp) -> String {
    format!("{time:.6}")
}

/// An object as it is recorded.
fn raw(object: Option<&Bytes>, omit_managed_fields: bool) -> Option<Box<RawValue>> {
    let object = object?;
    if !omit_managed_fields {
        return serde_json::from_slice(object).ok();
    }
    let mut value: Value = serde_json::from_slice(object).ok()?;
    let items = value.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take);
    let mut strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut value);
    if let Some(mut items) = items {
        items.iter_mut().for_each(&mut strip);
        value["items"] = items.into();
    }
    serde_json::value::to_raw_value(&value).ok()
}

/// Appends the record's line, with its end.
pub fn write_line(record: &AuditRecord, omit_managed_fields: bool, lines: &mut Vec<u8>) {
    let target = &record.target;
    let who = record.identity.impersonator.as_ref().unwrap_or(&record.identity.user);
    let event = Event {
        kind: "Event",
        api_version: "audit.k8s.io/v1",
        level: match record.level {
            AuditLevel::None => "None",
            AuditLevel::Metadata => "Metadata",
            AuditLevel::Request => "Request",
            AuditLevel::RequestResponse => "RequestResponse",
        },
        id: &record.id,
        stage: match record.stage {
            AuditStage::RequestReceived => "RequestReceived",
            AuditStage::ResponseStarted => "ResponseStarted",
            AuditStage::ResponseComplete => "ResponseComplete",
            AuditStage::Panic => "Panic",
        },
        uri: &record.uri,
        verb: &record.verb,
        user: User::from(&**who),
        impersonated_user: record.identity.impersonator.is_some().then(|| (&*record.identity.user).into()),
        sources: record.source.map(|source| source.ip().to_string()).into_iter().collect(),
        user_agent: &record.user_agent,
        object_ref: target.is_resource.then_some(ObjectRef {
            resource: &target.resource,
            namespace: &target.namespace,
            name: &target.name,
            api_group: &target.group,
            api_version: &target.version,
            subresource: &target.subresource,
        }),
        response_status: record.code.map(|code| ResponseStatus::of(code, record.status.as_deref())),
        request_object: raw(record.request_object.as_ref(), omit_managed_fields),
        response_object: raw(record.response_object.as_ref(), omit_managed_fields),
        request_received_timestamp: micro_time(record.received),
        stage_timestamp: micro_time(record.now),
        annotations: &record.annotations,
    };
    let begin = lines.len();
    match serde_json::to_writer(&mut *lines, &event) {
        Ok(()) => lines.push(b'\n'),
        // Memory does not fail and no map has keys that are no text.
        Err(_) => lines.truncate(begin),
    }
}
