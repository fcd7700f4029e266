//! The settings that rules look at: ConfigMaps `config-defaults`, `config-features` and `config-autoscaler` of namespace
//! `knative-serving`. What is missing or cannot be read is upstream's default. Upstream: `pkg/apis/config`.

use api::{Context, Object};
use serde_json::Value;
use std::sync::Arc;

/// One ConfigMap as it is now.
pub(super) struct Settings(Option<Arc<Object>>);

impl Settings {
    /// Looks one up.
    pub(super) fn of(cx: &Context<'_>, name: &str) -> Self {
        Self(cx.lookup.get("", "configmaps", "knative-serving", name))
    }

    /// The text of a key.
    fn text(&self, key: &str) -> Option<String> {
        let object: Value = self.0.as_ref()?.decode().ok()?;
        object["data"].get(key).and_then(Value::as_str).map(str::to_owned)
    }

    fn number(&self, key: &str, missing: i64) -> i64 {
        self.text(key).and_then(|text| text.trim().parse().ok()).unwrap_or(missing)
    }

    fn flag(&self, key: &str, missing: bool) -> bool {
        self.text(key).map_or(missing, |text| text.eq_ignore_ascii_case("true"))
    }
}

/// `config-defaults`.
pub(super) struct Defaults {
    pub(super) timeout_seconds: i64,
    pub(super) max_timeout_seconds: i64,
    pub(super) response_start_timeout_seconds: i64,
    pub(super) idle_timeout_seconds: i64,
    pub(super) container_concurrency: i64,
    pub(super) container_concurrency_max: i64,
    pub(super) allow_container_concurrency_zero: bool,
    pub(super) container_name: String,
    pub(super) init_container_name: String,
    pub(super) enable_service_links: Option<bool>,
    /// Resource, request and limit.
    pub(super) resources: Vec<(&'static str, Option<String>, Option<String>)>,
}

impl Defaults {
    pub(super) fn of(cx: &Context<'_>) -> Self {
        let own = Settings::of(cx, "config-defaults");
        // A template may name the parent; a name that does is left to those who can fill templates.
        let name = |key: &str, missing: &str| {
            own.text(key)
                .filter(|text| !text.is_empty() && !text.contains("{{"))
                .unwrap_or(missing.to_owned())
        };
        let resource = |resource: &'static str, key: &str| {
            (
                resource,
                own.text(&format!("revision-{key}-request")),
                own.text(&format!("revision-{key}-limit")),
            )
        };
        Self {
            timeout_seconds: own.number("revision-timeout-seconds", 300),
            max_timeout_seconds: own.number("max-revision-timeout-seconds", 600),
            response_start_timeout_seconds: own.number("revision-response-start-timeout-seconds", 300),
            idle_timeout_seconds: own.number("revision-idle-timeout-seconds", 0),
            container_concurrency: own.number("container-concurrency", 0),
            container_concurrency_max: own.number("container-concurrency-max-limit", 1000),
            allow_container_concurrency_zero: own.flag("allow-container-concurrency-zero", true),
            container_name: name("container-name-template", "user-container"),
            init_container_name: name("init-container-name-template", "init-container"),
            enable_service_links: match own.text("enable-service-links").as_deref() {
                Some("true") => Some(true),
                Some("default") => None,
                _ => Some(false),
            },
            resources: vec![
                resource("cpu", "cpu"),
                resource("memory", "memory"),
                resource("ephemeral-storage", "ephemeral-storage"),
            ],
        }
    }
}

/// `config-features`.
pub(super) struct Features(Settings);

impl Features {
    pub(super) fn of(cx: &Context<'_>) -> Self {
        Self(Settings::of(cx, "config-features"))
    }

    /// What a feature is set to: `enabled`, `disabled`, `allowed`, `allowrootbounded`.
    pub(super) fn get(&self, key: &str) -> String {
        let missing = match key {
            "multi-container" | "kubernetes.podspec-volumes-emptydir" => "enabled",
            _ => "disabled",
        };
        self.0.text(key).map_or_else(|| missing.to_owned(), |text| text.to_lowercase())
    }

    /// Whether a feature is on.
    pub(super) fn is_enabled(&self, key: &str) -> bool {
        self.get(key) == "enabled"
    }
}

/// What rules need of `config-autoscaler`.
pub(super) struct Autoscaler {
    pub(super) class: String,
    pub(super) max_scale_limit: i64,
    pub(super) allow_zero_initial_scale: bool,
}

impl Autoscaler {
    pub(super) fn of(cx: &Context<'_>) -> Self {
        let own = Settings::of(cx, "config-autoscaler");
        Self {
            class: own.text("pod-autoscaler-class").unwrap_or_else(|| super::annotations::KPA.to_owned()),
            max_scale_limit: own.number("max-scale-limit", 0),
            allow_zero_initial_scale: own.flag("allow-zero-initial-scale", false),
        }
    }
}
