//! The environment and arguments of a container. Pure over [`Objects`].
//! Upstream: `pkg/kubelet` `makeEnvironmentVariables`, `third_party/forked/golang/expansion`, `pkg/kubelet/envvars`.

use crate::downward::{self, Facts};
use crate::objects::Objects;
use crate::spec::{ContainerDef, PodDef};
use k8s_openapi::api::core::v1::{ConfigMap, EnvVar, EnvVarSource, FileKeySelector, Secret, Service};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Replaces `$(NAME)` by what `value` says; `$$` is a dollar; what is unknown stays as it is.
pub(crate) fn expand(text: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => expanded.push_str(&value),
                None => {
                    let _ = write!(expanded, "$({name})");
                }
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Replaces references to variables that have a plain value. Upstream: `ExpandContainerCommandOnlyStatic`.
pub(crate) fn expand_static(text: &str, env: &[EnvVar]) -> String {
    expand(text, &|name| {
        let own = env
            .iter()
            .find(|own| own.name == name && own.value.as_deref().is_some_and(|value| !value.is_empty()));
        own.and_then(|own| own.value.clone())
    })
}

/// The variables of a container, ordered by name.
pub(crate) type Env = BTreeMap<String, String>;

/// Replaces references to variables of `env`.
pub(crate) fn expand_with(text: &str, env: &Env) -> String {
    expand(text, &|name| env.get(name).cloned())
}

/// Replaces references to variables of `env`, all of which must exist. Upstream: `ExpandContainerVolumeMounts`.
pub(crate) fn expand_strictly(text: &str, env: &Env) -> Result<String, String> {
    let missing = std::cell::RefCell::new(Vec::new());
    let expanded = expand(text, &|name| {
        let value = env.get(name).cloned();
        if value.is_none() {
            missing.borrow_mut().push(name.to_owned());
        }
        value
    });
    match missing.into_inner().first() {
        None => Ok(expanded),
        Some(name) => Err(format!("missing value for \"{name}\"")),
    }
}

/// Makes the environment of a container. `file` reads a volume's file for `fileKeyRef`.
///
/// # Errors
/// In upstream's words, for `CreateContainerConfigError`.
pub(crate) fn environment(
    def: &PodDef,
    container: &ContainerDef,
    objects: &dyn Objects,
    facts: &Facts<'_>,
    file: &dyn Fn(&FileKeySelector) -> Result<String, String>,
) -> Result<Env, String> {
    let services = service_variables(def, objects);
    let source = Source { def, container, objects, facts, file };
    let mut env = Env::new();
    for from in container.spec.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref
            && let Some(map) = source.config_map(&reference.name, reference.optional)?
        {
            env.extend(map.data.into_iter().flatten().map(|(key, value)| (format!("{prefix}{key}"), value)));
        }
        if let Some(reference) = &from.secret_ref
            && let Some(secret) = source.secret(&reference.name, reference.optional)?
        {
            let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
            let data = secret.data.into_iter().flatten();
            env.extend(data.map(|(key, value)| (format!("{prefix}{key}"), text(value.0))));
        }
    }
    for variable in container.spec.env.iter().flatten() {
        let plain = variable.value.as_deref().unwrap_or_default();
        let value = match (&variable.value_from, plain) {
            (Some(from), "") => match source.value(from)? {
                Some(value) => value,
                None => continue,
            },
            (_, plain) => expand(plain, &|name| env.get(name).or_else(|| services.get(name)).cloned()),
        };
        env.insert(variable.name.clone(), value);
    }
    for (name, value) in services {
        env.entry(name).or_insert(value);
    }
    Ok(env)
}

struct Source<'a> {
    def: &'a PodDef,
    container: &'a ContainerDef,
    objects: &'a dyn Objects,
    facts: &'a Facts<'a>,
    file: &'a dyn Fn(&FileKeySelector) -> Result<String, String>,
}

impl Source<'_> {
    fn config_map(&self, name: &str, optional: Option<bool>) -> Result<Option<ConfigMap>, String> {
        match self.objects.config_map(self.def.namespace(), name) {
            None if !optional.unwrap_or(false) => Err(format!("configmap \"{name}\" not found")),
            found => Ok(found),
        }
    }

    fn secret(&self, name: &str, optional: Option<bool>) -> Result<Option<Secret>, String> {
        match self.objects.secret(self.def.namespace(), name) {
            None if !optional.unwrap_or(false) => Err(format!("secret \"{name}\" not found")),
            found => Ok(found),
        }
    }

    fn value(&self, from: &EnvVarSource) -> Result<Option<String>, String> {
        let namespace = self.def.namespace();
        if let Some(field) = &from.field_ref {
            return downward::field(&field.field_path, self.def, self.facts).map(Some);
        }
        if let Some(selector) = &from.resource_field_ref {
            return downward::resource(selector, self.def, Some(&self.container.spec), self.facts).map(Some);
        }
        if let Some(reference) = &from.config_map_key_ref {
            let Some(map) = self.config_map(&reference.name, reference.optional)? else { return Ok(None) };
            return match map.data.and_then(|mut data| data.remove(&reference.key)) {
                None if !reference.optional.unwrap_or(false) => Err(format!(
                    "couldn't find key {} in ConfigMap {namespace}/{}",
                    reference.key, reference.name
                )),
                found => Ok(found),
            };
        }
        if let Some(reference) = &from.secret_key_ref {
            let Some(secret) = self.secret(&reference.name, reference.optional)? else { return Ok(None) };
            return match secret.data.and_then(|mut data| data.remove(&reference.key)) {
                None if !reference.optional.unwrap_or(false) => Err(format!(
                    "couldn't find key {} in Secret {namespace}/{}",
                    reference.key, reference.name
                )),
                found => Ok(found.map(|value| String::from_utf8_lossy(&value.0).into_owned())),
            };
        }
        if let Some(reference) = &from.file_key_ref {
            let text = (self.file)(reference)?;
            let value =
                file_variable(&text, &reference.key).map_err(|_| "couldn't parse env file".to_owned())?;
            return match value {
                Some(value) if !value.is_empty() => Ok(Some(value)),
                _ if reference.optional.unwrap_or(false) => Ok(None),
                _ => Err(format!(
                    "environment variable key \"{}\" not found in file \"{}\"",
                    reference.key, reference.path
                )),
            };
        }
        Ok(Some(String::new()))
    }
}

/// Finds a variable in a file of `NAME='value'` lines. Upstream: `pkg/kubelet/util/env`.
fn file_variable(text: &str, key: &str) -> Result<Option<String>, String> {
    let mut lines = text.split('\n');
    while let Some(line) = lines.next() {
        let line = line.trim_end_matches('\r').trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or("missing '='")?;
        if name.is_empty() {
            return Err("empty variable name".to_owned());
        }
        if name.ends_with([' ', '\t']) {
            return Err("whitespace before '=' is not allowed".to_owned());
        }
        if value.starts_with([' ', '\t']) {
            if name == key {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let mut rest = value.strip_prefix('\'').ok_or("value must be enclosed in single quotes")?;
        let mut value = String::new();
        loop {
            if let Some((head, tail)) = rest.split_once('\'') {
                value.push_str(head);
                let tail = tail.trim_start_matches([' ', '\t']).trim_end_matches('\r');
                if !tail.is_empty() && !tail.starts_with('#') {
                    return Err("unexpected content after closing quote".to_owned());
                }
                break;
            }
            value.push_str(rest);
            value.push('\n');
            rest = lines.next().ok_or("unclosed single quote")?;
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// Variables for the services of the pod's namespace, and for the API server.
fn service_variables(def: &PodDef, objects: &dyn Objects) -> Env {
    let mut env = Env::new();
    let has_address = |service: &Service| {
        let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        !address.is_empty() && address != "None"
    };
    let links = def.spec().enable_service_links.unwrap_or(true);
    let named = |service: &Service| service.metadata.name.as_deref() == Some("kubernetes");
    let mut services: Vec<Service> = objects.service("default", "kubernetes").into_iter().collect();
    if links {
        let own = objects.services(def.namespace()).into_iter();
        let master = def.namespace() == "default";
        services.extend(own.filter(|service| !(master && named(service))));
    }
    for service in services.iter().filter(|service| has_address(service)) {
        add_service(service, &mut env);
    }
    env
}

fn add_service(service: &Service, env: &mut Env) {
    let variable = |text: &str| text.replace('-', "_").to_ascii_uppercase();
    let prefix = variable(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    env.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let number = port.port;
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_ascii_lowercase();
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            env.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            env.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            env.insert(format!("{prefix}_SERVICE_PORT_{}", variable(name)), number.to_string());
        }
        let link = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
        env.insert(format!("{link}_PROTO"), lower);
        env.insert(format!("{link}_PORT"), number.to_string());
        env.insert(format!("{link}_ADDR"), address.to_owned());
        env.insert(link, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::tests::Fixed;
    use crate::spec::tests::pod;
    use serde_json::json;

    #[test]
    fn references_expand_as_upstream_does() {
        let env = Env::from([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())]);
        let check = |text: &str, expect: &str| assert_eq!(expand_with(text, &env), expect, "{text}");
        check("x$(A)y", "x1y");
        check("$(A)$(A)", "11");
        check("$(B)", "$(A)");
        check("$(NO)", "$(NO)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$(A", "$(A");
        check("$A $", "$A $");
        check("$()", "$()");
        check("`$(A)`", "`1`");
        assert_eq!(expand_strictly("$(A)/$(C)", &env), Err("missing value for \"C\"".to_owned()));
    }

    #[test]
    fn env_files() {
        let check = |text: &str, expect: Result<Option<&str>, ()>| {
            let found = file_variable(text, "K").map_err(|_| ());
            assert_eq!(found, expect.map(|own| own.map(str::to_owned)), "{text}");
        };
        check("# c\n\n K='v' # d\n", Ok(Some("v")));
        check("A='x\ny'\nK='1\n2'", Ok(Some("1\n2")));
        check("K= 'v'", Ok(Some("")));
        check("A='1'", Ok(None));
        check("K=v", Err(()));
        check("K ='v'", Err(()));
        check("K='v", Err(()));
        check("K='v' x", Err(()));
        check("nonsense", Err(()));
    }

    fn fixed() -> Fixed {
        let fixed = Fixed {
            services: vec![
                serde_json::from_value(json!({"metadata": {"name": "my-db", "namespace": "ns"},
                    "spec": {"clusterIP": "10.0.0.9", "ports": [{"port": 5432, "name": "sql"}]}}))
                .unwrap(),
                serde_json::from_value(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
                    "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 443, "name": "https"}]}}))
                .unwrap(),
                serde_json::from_value(json!({"metadata": {"name": "headless", "namespace": "ns"},
                    "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}))
                .unwrap(),
            ],
            ..Default::default()
        };
        let map = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        fixed.config_maps.lock().insert("ns/map".to_owned(), map);
        let secret = serde_json::from_value(json!({"data": {"p": "cHc="}})).unwrap();
        fixed.secrets.lock().insert("ns/secret".to_owned(), secret);
        fixed
    }

    fn check(container: serde_json::Value, expect: Result<&[(&str, &str)], &str>) {
        let def = pod(json!({"metadata": {"name": "p", "namespace": "ns"},
            "spec": {"enableServiceLinks": false, "containers": [container]}}));
        let found =
            environment(&def, &def.containers[0], &fixed(), &Facts::default(), &|_| Ok("K='v'".to_owned()));
        let found = found.map(|env| {
            let own = env.into_iter().filter(|(name, _)| !name.starts_with("KUBERNETES_"));
            own.collect::<Vec<_>>()
        });
        let expect = expect
            .map(|list| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>());
        assert_eq!(found, expect.map_err(str::to_owned), "{container}");
    }

    #[test]
    fn sources_of_variables() {
        let with = |env: serde_json::Value| json!({"name": "c", "env": env});
        check(
            with(
                json!([{"name": "A", "value": "x"}, {"name": "B", "value": "$(A)-$(C)"}, {"name": "C", "value": "late"}]),
            ),
            Ok(&[("A", "x"), ("B", "x-$(C)"), ("C", "late")]),
        );
        check(with(json!([{"name": "A", "value": "$(KUBERNETES_SERVICE_HOST)"}])), Ok(&[("A", "10.0.0.1")]));
        check(
            with(json!([{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])),
            Ok(&[("N", "p")]),
        );
        let key = |name: &str, key: &str, optional: bool| {
            with(
                json!([{"name": "K", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": optional}}}]),
            )
        };
        check(key("map", "a", false), Ok(&[("K", "1")]));
        check(key("map", "z", true), Ok(&[]));
        check(key("map", "z", false), Err("couldn't find key z in ConfigMap ns/map"));
        check(key("none", "a", false), Err("configmap \"none\" not found"));
        check(key("none", "a", true), Ok(&[]));
        check(
            with(json!([{"name": "S", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "p"}}}])),
            Ok(&[("S", "pw")]),
        );
        check(
            with(
                json!([{"name": "F", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "f", "key": "K"}}}]),
            ),
            Ok(&[("F", "v")]),
        );
        check(
            json!({"name": "c", "env": [{"name": "x_a", "value": "own"}], "envFrom": [
                {"prefix": "x_", "configMapRef": {"name": "map"}}, {"secretRef": {"name": "secret"}},
                {"secretRef": {"name": "none", "optional": true}}]}),
            Ok(&[("p", "pw"), ("x_a", "own"), ("x_b", "2")]),
        );
    }

    #[test]
    fn services_of_the_namespace_and_the_api_are_announced() {
        let def = pod(
            json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [{"name": "c"}]}}),
        );
        let env = environment(&def, &def.containers[0], &fixed(), &Facts::default(), &|_| Err(String::new()))
            .unwrap();
        let expect = [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("MY_DB_SERVICE_HOST", "10.0.0.9"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://10.0.0.9:5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.0.0.9:5432"),
            ("MY_DB_PORT_5432_TCP_PROTO", "tcp"),
            ("MY_DB_PORT_5432_TCP_PORT", "5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.0.0.9"),
        ];
        for (name, value) in expect {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("HEADLESS_SERVICE_HOST"));
    }
}
