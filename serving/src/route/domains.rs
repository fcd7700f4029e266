//! Hosts of a route. Pure. Upstream: `pkg/reconciler/route/domains`, `pkg/reconciler/route/config/domain.go`.

use crate::kinds::{label, name_of, namespace_of};
use crate::settings::Settings;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Keeps a route, or one of its tags, within the cluster.
const VISIBILITY: &str = "networking.knative.dev/visibility";

/// A template says something that is not understood.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "{key} {template:?} of config-network: {part:?} is none of {{{{.Name}}}}, {{{{.Namespace}}}}, {{{{.Domain}}}}, {{{{.Tag}}}}, {{{{index .Annotations \"KEY\"}}}}, {{{{index .Labels \"KEY\"}}}}"
)]
pub(crate) struct TemplateError {
    key: &'static str,
    template: String,
    part: String,
}

/// The hosts of a route.
pub(crate) struct Hosts<'h> {
    pub(crate) meta: &'h ObjectMeta,
    pub(crate) settings: &'h Settings,
    pub(crate) cluster_domain: &'h str,
}

impl Hosts<'_> {
    /// The domain above the route's host: that with the most labels of the route's, else the one without.
    fn domain(&self) -> String {
        let fits = |labels: &&std::collections::BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| label(self.meta, key) == value)
        };
        let found = self.settings.domains.iter().filter(|(_, labels)| fits(labels));
        let found = found.max_by_key(|(domain, labels)| (labels.len(), std::cmp::Reverse((*domain).clone())));
        found.map_or_else(|| format!("svc.{}", self.cluster_domain), |(domain, _)| domain.clone())
    }

    /// Whether nothing of the route is to be seen from outside.
    pub(crate) fn is_local(&self) -> bool {
        label(self.meta, VISIBILITY) == "cluster-local"
            || self.domain() == format!("svc.{}", self.cluster_domain)
    }

    /// The name of the host of a tag; of no tag, the route's.
    ///
    /// # Errors
    /// The template is not understood.
    pub(crate) fn name(&self, tag: &str) -> Result<String, TemplateError> {
        let name = name_of(self.meta);
        if tag.is_empty() {
            return Ok(name.to_owned());
        }
        self.filled("tag-template", &self.settings.tag_template, &[(".Name", name), (".Tag", tag)])
    }

    /// The host under which it is seen from outside, or from within the cluster where it is local.
    ///
    /// # Errors
    /// The template is not understood.
    pub(crate) fn host(&self, tag: &str) -> Result<String, TemplateError> {
        let (name, namespace) = (self.name(tag)?, namespace_of(self.meta));
        if self.is_local() {
            return Ok(format!("{name}.{namespace}.svc.{}", self.cluster_domain));
        }
        let domain = self.domain();
        let values =
            [(".Name", name.as_str()), (".Namespace", namespace), (".Domain", &domain), (".Tag", tag)];
        self.filled("domain-template", &self.settings.domain_template, &values)
    }

    /// The hosts within the cluster, shortest first.
    ///
    /// # Errors
    /// The template is not understood.
    pub(crate) fn local(&self, tag: &str) -> Result<[String; 3], TemplateError> {
        let short = format!("{}.{}", self.name(tag)?, namespace_of(self.meta));
        let (middle, long) = (format!("{short}.svc"), format!("{short}.svc.{}", self.cluster_domain));
        Ok([short, middle, long])
    }

    /// The URL of a tag.
    ///
    /// # Errors
    /// The template is not understood.
    pub(crate) fn url(&self, tag: &str) -> Result<String, TemplateError> {
        let scheme = if self.is_local() { "http" } else { &self.settings.external_scheme };
        Ok(format!("{scheme}://{}", self.host(tag)?))
    }

    /// A template with its parts filled in; of Go's templates, what upstream documents.
    fn filled(
        &self,
        key: &'static str,
        template: &str,
        values: &[(&str, &str)],
    ) -> Result<String, TemplateError> {
        let mut filled = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let wrong =
                |part: &str| TemplateError { key, template: template.to_owned(), part: part.to_owned() };
            let (part, behind) = after.split_once("}}").ok_or_else(|| wrong(after))?;
            let part = part.trim();
            let indexed = |field: &str| {
                Some(part.strip_prefix("index")?.trim().strip_prefix(field)?.trim().trim_matches('"'))
            };
            let value = match (indexed(".Annotations"), indexed(".Labels")) {
                (Some(key), _) => crate::kinds::annotation(self.meta, key).unwrap_or_default(),
                (_, Some(key)) => label(self.meta, key),
                _ => values.iter().find(|(name, _)| *name == part).ok_or_else(|| wrong(part))?.1,
            };
            filled.push_str(before);
            filled.push_str(value);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn settings(maps: &[(&str, &[(&str, &str)])]) -> Settings {
        Settings::read(|name| {
            let (_, data) = maps.iter().find(|(own, _)| *own == name)?;
            Some(
                data.iter()
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect::<BTreeMap<_, _>>(),
            )
        })
    }

    fn check(settings: &Settings, labels: serde_json::Value, tag: &str, expect: &str) {
        let meta = json!({"name": "web", "namespace": "a", "labels": labels, "annotations": {"sub": "x"}});
        let meta = serde_json::from_value(meta).unwrap();
        let hosts = Hosts { meta: &meta, settings, cluster_domain: "cluster.local" };
        let shown = hosts.url(tag).unwrap_or_else(|error| error.to_string());
        assert_eq!(shown, expect);
    }

    #[test]
    fn hosts_follow_domains_and_templates() {
        let none = json!({});
        check(&settings(&[]), none.clone(), "", "http://web.a.svc.cluster.local");
        let own = settings(&[("config-domain", &[("example.com", ""), ("x.org", "selector:\n  app: x\n")])]);
        check(&own, none.clone(), "", "http://web.a.example.com");
        check(&own, none.clone(), "next", "http://next-web.a.example.com");
        check(&own, json!({"app": "x"}), "", "http://web.a.x.org");
        check(&own, json!({VISIBILITY: "cluster-local"}), "next", "http://next-web.a.svc.cluster.local");
        let templates = settings(&[
            ("config-domain", &[("example.com", "")]),
            (
                "config-network",
                &[("domain-template", "{{.Name}}-{{ index .Annotations \"sub\" }}.{{.Domain}}")],
            ),
        ]);
        check(&templates, none.clone(), "", "http://web-x.example.com");
        let wrong = settings(&[
            ("config-domain", &[("example.com", "")]),
            ("config-network", &[("domain-template", "{{if .Name}}")]),
        ]);
        let meta = ObjectMeta::default();
        let hosts = Hosts { meta: &meta, settings: &wrong, cluster_domain: "cluster.local" };
        assert_eq!(hosts.host("").unwrap_err().part, "if .Name");
    }
}
