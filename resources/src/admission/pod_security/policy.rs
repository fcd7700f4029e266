//! Which rules a namespace asks for. Upstream: `pod-security-admission/api`.

use api::FieldErrors;
use std::collections::BTreeMap;
use std::fmt;

pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How strict, from lax to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a minor version of Kubernetes 1; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) minor: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What is refused, recorded and warned of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Standard,
    pub(super) audit: Standard,
    pub(super) warn: Standard,
}

const LAX: Standard = Standard { level: Level::Privileged, minor: None };

fn parse_level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// The outer `None` is no version.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let is_number =
        minor.bytes().all(|byte| byte.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    minor.parse().ok().filter(|_| is_number).map(Some)
}

/// Reads the labels of one mode into a standard; what is no level becomes `fallback`. Whether there is a level label,
/// whether it is good, and whether there is a version label.
fn read(
    labels: &BTreeMap<String, String>,
    mode: &str,
    fallback: Level,
    errors: &mut FieldErrors,
) -> (Standard, [bool; 3]) {
    let mut standard = LAX;
    let mut invalid = |key: &str, value: &str, why: &str| {
        errors.invalid(&format!("metadata.labels[{key}]"), value, why);
    };
    let (level_key, version_key) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
    let level = labels.get(&level_key);
    let parsed = level.and_then(|text| parse_level(text));
    if let Some(text) = level {
        standard.level = parsed.unwrap_or(fallback);
        if parsed.is_none() {
            invalid(&level_key, text, "must be one of privileged, baseline, restricted");
        }
    }
    let version = labels.get(&version_key);
    if let Some(text) = version {
        let parsed = parse_version(text);
        standard.minor = parsed.flatten();
        if parsed.is_none() {
            invalid(&version_key, text, "must be \"latest\" or \"v1.x\"");
        }
    }
    (standard, [level.is_some(), parsed.is_some(), version.is_some()])
}

impl Policy {
    /// What the labels of a namespace say, and what is wrong with them. Labels that cannot be read are enforced strictly.
    pub(super) fn of(labels: &BTreeMap<String, String>, errors: &mut FieldErrors) -> Self {
        let (enforce, [_, has_enforce, _]) = read(labels, "enforce", Level::Restricted, errors);
        let (audit, _) = read(labels, "audit", Level::Privileged, errors);
        let (mut warn, [has_warn, _, has_warn_version]) = read(labels, "warn", Level::Privileged, errors);
        if !has_warn && has_enforce && enforce.level > warn.level {
            warn.level = enforce.level;
            if !has_warn_version {
                warn.minor = enforce.minor;
            }
        }
        Self { enforce, audit, warn }
    }

    /// Whether nothing is asked for.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|own| own.level == Level::Privileged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], expect: [&str; 3], faults: &[&str]) {
        let labels =
            labels.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect();
        let mut errors = FieldErrors::default();
        let policy = Policy::of(&labels, &mut errors);
        let texts = [policy.enforce, policy.audit, policy.warn].map(|own| own.to_string());
        assert_eq!(texts, expect, "{labels:?}");
        let errors: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(errors, faults);
    }

    #[test]
    fn labels() {
        const LATEST: &str = "privileged:latest";
        check(&[], [LATEST; 3], &[]);
        check(&[("enforce", "baseline")], ["baseline:latest", LATEST, "baseline:latest"], &[]);
        check(
            &[("enforce", "restricted"), ("enforce-version", "v1.20"), ("audit", "baseline")],
            ["restricted:v1.20", "baseline:latest", "restricted:v1.20"],
            &[],
        );
        check(
            &[("enforce", "baseline"), ("warn", "privileged"), ("warn-version", "v1.0")],
            ["baseline:latest", LATEST, "privileged:v1.0"],
            &[],
        );
        let level = "must be one of privileged, baseline, restricted";
        let version = "must be \"latest\" or \"v1.x\"";
        check(
            &[("enforce", "x"), ("audit", "y"), ("warn-version", "v1.05")],
            ["restricted:latest", LATEST, LATEST],
            &[
                &format!("metadata.labels[{PREFIX}enforce]: Invalid value: \"x\": {level}"),
                &format!("metadata.labels[{PREFIX}audit]: Invalid value: \"y\": {level}"),
                &format!("metadata.labels[{PREFIX}warn-version]: Invalid value: \"v1.05\": {version}"),
            ],
        );
    }
}
