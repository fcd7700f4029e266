//! The rules of ping sources. Upstream: `pkg/apis/sources/v1/ping_{defaults,validation}.go`.

use super::kinds::text;
use super::sources::{check_source, default_source};
use crate::knative::faults::Faults;
use crate::knative::native::Rules;
use api::Context;
use api::cron::Schedule;
use base64::Engine;
use serde_json::{Map, Value};

const SCHEDULE: &str = "* * * * *";

pub(super) struct PingSource;

impl Rules for PingSource {
    fn default(&self, object: &mut Value, _: Option<&Value>, _: &Context<'_>) {
        default_source(object);
        if text(&object["spec"], "schedule").is_empty() {
            object["spec"]["schedule"] = SCHEDULE.into();
        }
    }

    fn validate(&self, object: &Value, _: Option<&Value>, _: &Context<'_>, faults: &mut Faults) {
        faults.at("spec", |faults| check(&object["spec"], faults));
    }
}

fn check(spec: &Value, faults: &mut Faults) {
    // Which time zones there are is known where schedules run.
    let schedule = text(spec, "schedule");
    if schedule.contains("@every") {
        faults.invalid("unsupported descriptor @every", "schedule", "");
    } else if let Err(error) = Schedule::parse(schedule) {
        faults.invalid(error, "schedule", "");
    }
    check_source(spec, faults);
    let (data, encoded) = (text(spec, "data"), text(spec, "dataBase64"));
    let is_json = text(spec, "contentType") == "application/json";
    let json_object = |own: &[u8]| serde_json::from_slice::<Map<String, Value>>(own);
    if !data.is_empty() && !encoded.is_empty() {
        faults.several_of(&["data", "dataBase64"]);
    } else if !encoded.is_empty() {
        match base64::engine::general_purpose::STANDARD.decode(encoded) {
            Err(error) => faults.invalid(error, "dataBase64", ""),
            Ok(own) if is_json => {
                if let Err(error) = json_object(&own) {
                    faults.invalid(error, "dataBase64", "");
                }
            }
            Ok(_) => {}
        }
    } else if !data.is_empty()
        && is_json
        && let Err(error) = json_object(data.as_bytes())
    {
        faults.invalid(error, "data", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schedules_and_data_are_checked() {
        let told = |extra: Value, expect: &str| {
            let mut spec = json!({"schedule": "*/5 * * * *", "sink": {"uri": "http://a.b"}});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let mut faults = Faults::default();
            check(&spec, &mut faults);
            let text = faults.text().unwrap_or_default();
            assert!(
                if expect.is_empty() { text.is_empty() } else { text.contains(expect) },
                "{spec}: {text}"
            );
        };
        told(json!({"timezone": "UTC", "contentType": "application/json", "data": "{\"a\": 1}"}), "");
        told(json!({"schedule": "2h"}), "spec.schedule".trim_start_matches("spec."));
        told(json!({"schedule": "@every 1h"}), "unsupported descriptor @every: schedule");
        told(json!({"data": "a", "dataBase64": "YQ=="}), "expected exactly one, got both: data, dataBase64");
        told(json!({"dataBase64": "%"}), "dataBase64");
        told(json!({"contentType": "application/json", "data": "no"}), "data");
        told(json!({"sink": {}}), "expected at least one, got none: sink.ref, sink.uri");
    }
}
