//! Which container a request is about, and how the node is asked. Pure.
//! Upstream: `pkg/registry/core/pod/strategy.go`.

use crate::path::Query;
use api::{FieldErrors, Status};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// What a query may have unescaped.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Names of all containers: ordinary, init and ephemeral ones in upstream's order of visiting.
fn containers(pod: &Value) -> impl Iterator<Item = &str> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists
        .into_iter()
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .filter_map(|own| own["name"].as_str())
}

/// The container that is meant.
///
/// # Errors
/// 400 with upstream's words where that is not clear.
pub(super) fn container(pod: &Value, asked: &str) -> Result<String, Status> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if !asked.is_empty() {
        return match containers(pod).any(|own| own == asked) {
            true => Ok(asked.to_owned()),
            false => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        };
    }
    match pod["spec"]["containers"].as_array().map_or(&[][..], Vec::as_slice) {
        [one] => Ok(one["name"].as_str().unwrap_or_default().to_owned()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            containers(pod).collect::<Vec<_>>().join(" ")
        ))),
    }
}

/// The node of a pod, if it has one.
pub(super) fn node(pod: &Value) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

fn push(text: &mut String, key: &str, value: &str) {
    if !text.is_empty() {
        text.push('&');
    }
    text.extend(utf8_percent_encode(key, QUERY));
    text.push('=');
    text.extend(utf8_percent_encode(value, QUERY));
}

/// What the node is asked about an exec or attach: `input`, `output`, `error`, `tty`, `command`.
pub(super) fn stream_query(query: &Query) -> String {
    let mut text = String::new();
    for (own, nodes) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(own) {
            push(&mut text, nodes, "1");
        }
    }
    for command in query.all("command") {
        push(&mut text, "command", command);
    }
    text
}

/// What the node is asked about forwarded ports.
pub(super) fn forward_query(query: &Query) -> String {
    let ports: Vec<_> = query.all("ports").collect();
    let mut text = String::new();
    if !ports.is_empty() {
        push(&mut text, "port", &ports.join(","));
    }
    text
}

/// What the node is asked about a log.
///
/// # Errors
/// 422 where numbers are out of range, 400 where they are none.
pub(super) fn log_query(name: &str, query: &Query) -> Result<String, Status> {
    let mut errors = FieldErrors::default();
    let (tail, bytes) = (query.number("tailLines")?, query.number("limitBytes")?);
    let (since, time) =
        (query.number("sinceSeconds")?, query.get("sinceTime").filter(|text| !text.is_empty()));
    if let Some(tail) = tail.filter(|tail| *tail < 0) {
        errors.invalid("tailLines", tail, "must be greater than or equal to 0");
    }
    for (field, value) in [("limitBytes", bytes), ("sinceSeconds", since)] {
        if field == "sinceSeconds" && time.is_some() && since.is_some() {
            errors.forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified");
        } else if let Some(value) = value.filter(|value| *value < 1) {
            errors.invalid(field, value, "must be greater than 0");
        }
    }
    if query.get("stream").is_some_and(|stream| !stream.is_empty()) {
        errors.forbidden("stream", "may not be specified");
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", name, errors));
    }
    let time = match time {
        Some(text) => Some(text.parse::<api::Timestamp>().map_err(|_| {
            Status::bad_request(format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse"
            ))
        })?),
        None => None,
    };
    let mut text = String::new();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            push(&mut text, flag, "true");
        }
    }
    for (field, value) in [("sinceSeconds", since), ("tailLines", tail), ("limitBytes", bytes)] {
        if let Some(value) = value {
            push(&mut text, field, &value.to_string());
        }
    }
    if let Some(time) = time {
        push(&mut text, "sinceTime", &time.to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn which_container() {
        let pod = |names: &[&str]| {
            let list: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": list, "initContainers": [{"name": "init"}]}})
        };
        let check = |pod: Value, asked: &str, expect: Result<&str, &str>| {
            let found = container(&pod, asked).map_err(|status| status.message);
            assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned));
        };
        check(pod(&["a"]), "", Ok("a"));
        check(pod(&["a"]), "init", Ok("init"));
        check(pod(&["a"]), "b", Err("container b is not valid for pod p"));
        check(
            pod(&["a", "b"]),
            "",
            Err("a container name must be specified for pod p, choose one of: [init a b]"),
        );
        check(pod(&[]), "", Err("a container name must be specified for pod p"));
    }

    #[test]
    fn queries() {
        let query =
            Query::parse(Some("stdin=true&stdout=1&tty=false&command=sh&command=-c&command=echo+a%26b"));
        assert_eq!(stream_query(&query), "input=1&output=1&command=sh&command=-c&command=echo%20a%26b");
        assert_eq!(forward_query(&Query::parse(Some("ports=80&ports=81"))), "port=80%2C81");
        let log = |text: &str| log_query("p", &Query::parse(Some(text))).map_err(|status| status.message);
        assert_eq!(log("container=c&follow=true&tailLines=5").unwrap(), "follow=true&tailLines=5");
        assert_eq!(
            log("sinceTime=2026-01-01T00:00:00Z&timestamps=true").unwrap(),
            "timestamps=true&sinceTime=2026-01-01T00%3A00%3A00Z"
        );
        assert_eq!(
            log("tailLines=-1").unwrap_err(),
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(
            log("limitBytes=0").unwrap_err(),
            "PodLogOptions \"p\" is invalid: limitBytes: Invalid value: 0: must be greater than 0"
        );
        assert!(log("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z").is_err());
    }
}
