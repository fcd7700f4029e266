//! What a revision's pods may be. Upstream: `pkg/apis/serving/k8s_validation.go`.
//!
//! Fields that no revision may have are not in the definition, so they are gone before anybody looks here.

use super::settings::Features;
use crate::knative::faults::Faults;
use api::names;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const RESERVED_PORTS: [i64; 6] = [8008, 8012, 8013, 8022, 9090, 9091];
const RESERVED_PATHS: [&str; 3] = ["/", "/dev", "/dev/log"];
const RESERVED_ENV: [&str; 3] = ["K_SERVICE", "K_CONFIGURATION", "K_REVISION"];
/// Volumes whose mounts may be written to.
const WRITABLE: [&str; 3] = ["emptyDir", "persistentVolumeClaim", "ephemeral"];

/// Fields of a pod that need a feature.
const GATED: &[(&str, &str)] = &[
    ("affinity", "kubernetes.podspec-affinity"),
    ("topologySpreadConstraints", "kubernetes.podspec-topologyspreadconstraints"),
    ("hostAliases", "kubernetes.podspec-hostaliases"),
    ("nodeSelector", "kubernetes.podspec-nodeselector"),
    ("runtimeClassName", "kubernetes.podspec-runtimeclassname"),
    ("tolerations", "kubernetes.podspec-tolerations"),
    ("securityContext", "kubernetes.podspec-securitycontext"),
    ("priorityClassName", "kubernetes.podspec-priorityclassname"),
    ("schedulerName", "kubernetes.podspec-schedulername"),
    ("shareProcessNamespace", "kubernetes.podspec-shareprocessnamespace"),
    ("hostIPC", "kubernetes.podspec-hostipc"),
    ("hostPID", "kubernetes.podspec-hostpid"),
    ("hostNetwork", "kubernetes.podspec-hostnetwork"),
    ("dnsPolicy", "kubernetes.podspec-dnspolicy"),
    ("dnsConfig", "kubernetes.podspec-dnsconfig"),
];

/// Volume sources, the name they have in messages, and the feature they need; no feature for those that are always there.
const VOLUMES: &[(&str, &str, Option<&str>)] = &[
    ("secret", "", None),
    ("configMap", "", None),
    ("projected", "", None),
    ("emptyDir", "EmptyDir", Some("kubernetes.podspec-volumes-emptydir")),
    ("persistentVolumeClaim", "", Some("kubernetes.podspec-persistent-volume-claim")),
    ("hostPath", "HostPath", Some("kubernetes.podspec-volumes-hostpath")),
    ("csi", "CSI", Some("kubernetes.podspec-volumes-csi")),
    ("ephemeral", "Ephemeral", Some("kubernetes.podspec-volumes-ephemeral")),
    ("image", "Image", Some("kubernetes.podspec-volumes-image")),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Serves requests.
    Serving,
    /// Runs beside it.
    Sidecar,
    /// Runs before them.
    Init,
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn has(value: &Value, field: &str) -> bool {
    value.get(field).is_some_and(|own| !own.is_null())
}

/// What must be true of a pod's spec.
pub(super) fn validate(spec: &Value, features: &Features, faults: &mut Faults) {
    for (field, feature) in GATED {
        if has(spec, field) && features.get(feature) == "disabled" {
            faults.disallowed(&[field]);
        }
    }
    faults.at("securityContext", |faults| {
        check_ids(&spec["securityContext"], &["runAsUser", "runAsGroup", "fsGroup"], faults)
    });
    let (containers, init) = (list(spec, "containers"), list(spec, "initContainers"));
    let volumes = validate_volumes(spec, features, faults);
    validate_init(init, containers, features, &volumes, faults);
    let ports: Vec<&Value> = containers.iter().flat_map(|own| list(own, "ports")).collect();
    faults.at("containers[*]", |faults| {
        if ports.is_empty() && containers.len() > 1 {
            faults.missing("ports");
        }
        if ports.len() > 1 {
            let why = "Only a single port is allowed across all containers";
            faults.add("more than one container port is set", &["ports"], why);
        }
    });
    let port_name = ports.last().map(|own| text(own, "name")).filter(|own| !own.is_empty()).unwrap_or("http");
    match containers {
        [] => faults.missing("containers"),
        [one] => faults.at("containers[0]", |faults| {
            validate_container(one, Role::Serving, port_name, features, &volumes, faults);
        }),
        all if !features.is_enabled("multi-container") => {
            faults.generic(format!("multi-container is off, but found {} containers", all.len()), "");
        }
        all => {
            let mut seen = BTreeSet::new();
            for (index, own) in all.iter().enumerate() {
                faults.at(format!("containers[{index}]"), |faults| {
                    let name = text(own, "name");
                    if !seen.insert(name) {
                        faults.generic(format!("duplicate container name {name:?}"), "name");
                    }
                    let role = if list(own, "ports").is_empty() { Role::Sidecar } else { Role::Serving };
                    validate_container(own, role, port_name, features, &volumes, faults);
                });
            }
        }
    }
    let account = text(spec, "serviceAccountName");
    if !account.is_empty() {
        for why in names::dns_subdomain(account) {
            faults.invalid(account, "serviceAccountName", &why);
        }
    }
}

fn validate_volumes<'v>(
    spec: &'v Value,
    features: &Features,
    faults: &mut Faults,
) -> BTreeMap<&'v str, &'v Value> {
    let containers = list(spec, "containers").iter().chain(list(spec, "initContainers"));
    let mounted: BTreeSet<&str> =
        containers.flat_map(|own| list(own, "volumeMounts")).map(|own| text(own, "name")).collect();
    let mut volumes = BTreeMap::new();
    faults.at("volumes", |faults| {
        for (index, volume) in list(spec, "volumes").iter().enumerate() {
            faults.index(index, |faults| {
                let name = text(volume, "name");
                if volumes.insert(name, volume).is_some() {
                    faults.generic(format!("duplicate volume name {name:?}"), "name");
                }
                if !mounted.contains(name) {
                    faults.generic(format!("volume with name {name:?} not mounted"), "name");
                }
                validate_volume(volume, features, faults);
            });
        }
    });
    volumes
}

fn validate_volume(volume: &Value, features: &Features, faults: &mut Faults) {
    let name = text(volume, "name");
    if name.is_empty() {
        faults.missing("name");
    } else if !names::dns_label(name).is_empty() {
        faults.invalid(name, "name", "");
    }
    let mut specified = Vec::new();
    for (field, kind, feature) in VOLUMES.iter().filter(|(field, ..)| has(volume, field)) {
        specified.push(*field);
        let Some(feature) = feature.filter(|own| !features.is_enabled(own)) else { continue };
        if *field == "persistentVolumeClaim" {
            let claim = text(&volume[*field], "claimName");
            let why = format!(
                "Persistent volume claim support is disabled, but found persistent volume claim {claim}"
            );
            faults.generic(why, "");
        } else if !feature.is_empty() {
            faults.generic(format!("{kind} volume support is disabled, but found {kind} volume {name}"), "");
        }
    }
    let claim = &volume["persistentVolumeClaim"];
    if claim.is_object()
        && claim["readOnly"] != true
        && !features.is_enabled("kubernetes.podspec-persistent-volume-write")
    {
        let why = format!(
            "Persistent volume write support is disabled, but found persistent volume claim {} that is not read-only",
            text(claim, "claimName")
        );
        faults.generic(why, "");
    }
    match specified.len() {
        0 => {
            let known = VOLUMES.iter().filter(|own| own.2.is_none_or(|feature| features.is_enabled(feature)));
            faults.missing_one_of(&known.map(|own| own.0).collect::<Vec<_>>());
        }
        1 => {}
        _ => faults.several_of(&specified),
    }
    for field in ["secret", "configMap"] {
        validate_items(&volume[field], faults);
    }
    for (index, source) in list(&volume["projected"], "sources").iter().enumerate() {
        faults.at(format!("projected[{index}]"), |faults| validate_projection(source, faults));
    }
    let medium = text(&volume["emptyDir"], "medium");
    if !["", "Memory"].contains(&medium) {
        faults.invalid(medium, "emptyDir.medium", "");
    }
}

fn validate_items(source: &Value, faults: &mut Faults) {
    for (index, item) in list(source, "items").iter().enumerate() {
        faults.at(format!("items[{index}]"), |faults| {
            for field in ["key", "path"].into_iter().filter(|field| text(item, field).is_empty()) {
                faults.missing(field);
            }
        });
    }
}

fn validate_projection(source: &Value, faults: &mut Faults) {
    let kinds = ["secret", "configMap", "serviceAccountToken", "downwardAPI"];
    let specified: Vec<&str> = kinds.into_iter().filter(|kind| has(source, kind)).collect();
    for kind in ["secret", "configMap"].into_iter().filter(|kind| has(source, kind)) {
        faults.at(kind, |faults| {
            if text(&source[kind], "name").is_empty() {
                faults.missing("name");
            }
            validate_items(&source[kind], faults);
        });
    }
    if has(source, "serviceAccountToken") && text(&source["serviceAccountToken"], "path").is_empty() {
        faults.missing("serviceAccountToken.path");
    }
    match specified.len() {
        0 => faults.missing_one_of(&kinds),
        1 => {}
        _ => faults.several_of(&specified),
    }
}

fn validate_init(
    init: &[Value],
    others: &[Value],
    features: &Features,
    volumes: &BTreeMap<&str, &Value>,
    faults: &mut Faults,
) {
    if init.is_empty() {
        return;
    }
    if !features.is_enabled("kubernetes.podspec-init-containers") {
        let why =
            format!("pod spec support for init-containers is off, but found {} init containers", init.len());
        faults.generic(why, "");
        return;
    }
    for (index, own) in init.iter().enumerate() {
        // Upstream names the field so.
        faults.at(format!("containers[{index}]"), |faults| {
            let name = text(own, "name");
            if others.iter().any(|other| text(other, "name") == name) {
                faults.generic(format!("duplicate container name {name:?}"), "name");
            }
            for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
                if has(own, field) {
                    faults.generic("field not allowed in an init container", field);
                }
            }
            validate_container(own, Role::Init, "", features, volumes, faults);
        });
    }
}

fn validate_container(
    container: &Value,
    role: Role,
    port_name: &str,
    features: &Features,
    volumes: &BTreeMap<&str, &Value>,
    faults: &mut Faults,
) {
    if container.as_object().is_none_or(serde_json::Map::is_empty) {
        faults.missing("");
        return;
    }
    validate_probes(container, role, port_name, features, faults);
    let name = text(container, "name");
    if name == "queue-proxy" {
        faults.generic(format!("{name:?} is a reserved container name"), "name");
    }
    faults.at("env", |faults| validate_env(list(container, "env"), role, features, faults));
    faults.at("envFrom", |faults| {
        for (index, own) in list(container, "envFrom").iter().enumerate() {
            let count = ["configMapRef", "secretRef"].iter().filter(|kind| has(own, kind)).count();
            match count {
                0 => faults.missing_one_of(&["configMapRef", "secretRef"]),
                1 => {}
                _ => faults.index(index, |faults| faults.several_of(&["configMapRef", "secretRef"])),
            }
        }
    });
    let image = text(container, "image");
    if image.is_empty() {
        faults.missing("image");
    } else if !is_reference(image) {
        let why = format!("image: {image:?}, error: could not parse reference: {image}");
        faults.add("Failed to parse image reference", &["image"], why);
    }
    faults.at("ports", |faults| validate_ports(list(container, "ports"), role, faults));
    faults.at("securityContext", |faults| {
        check_ids(&container["securityContext"], &["runAsUser", "runAsGroup"], faults);
    });
    let policy = text(container, "terminationMessagePolicy");
    if !["", "File", "FallbackToLogsOnError"].contains(&policy) {
        faults.invalid(policy, "terminationMessagePolicy", "");
    }
    faults.at("volumeMounts", |faults| validate_mounts(list(container, "volumeMounts"), volumes, faults));
}

/// Whether something can be the reference of an image. Upstream: go-containerregistry `name.ParseReference`.
fn is_reference(image: &str) -> bool {
    let (path, digest) = image.split_once('@').map_or((image, None), |(path, digest)| (path, Some(digest)));
    let slash = path.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match path[slash..].rfind(':') {
        Some(at) => (&path[..slash + at], Some(&path[slash + at + 1..])),
        None => (path, None),
    };
    let is_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-./".contains(c);
    let is_tag = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let (host, rest) = match repository.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => ("", repository),
    };
    !rest.is_empty()
        && rest.len() <= 255
        && rest.chars().all(is_path)
        && host.chars().all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c))
        && tag.is_none_or(|tag| !tag.is_empty() && tag.len() <= 128 && tag.chars().all(is_tag))
        && digest.is_none_or(|digest| {
            digest
                .strip_prefix("sha256:")
                .is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
        })
}

fn validate_env(env: &[Value], role: Role, features: &Features, faults: &mut Faults) {
    for (index, own) in env.iter().enumerate() {
        faults.index(index, |faults| {
            let name = text(own, "name");
            if name.is_empty() {
                faults.missing("name");
            } else if RESERVED_ENV.contains(&name) || (name == "PORT" && role == Role::Serving) {
                faults.generic(format!("{name:?} is a reserved environment variable"), "name");
            }
            for field in ["fieldRef", "resourceFieldRef"] {
                if has(&own["valueFrom"], field) && features.get("kubernetes.podspec-fieldref") == "disabled"
                {
                    faults.disallowed(&[&format!("valueFrom.{field}")]);
                }
            }
        });
    }
}

fn validate_ports(ports: &[Value], role: Role, faults: &mut Faults) {
    let seen = if role == Role::Init { ports } else { &ports[..ports.len().min(1)] };
    for port in seen {
        let number = port["containerPort"].as_i64().unwrap_or(0);
        if RESERVED_PORTS.contains(&number) {
            let why = format!("{number} is a reserved port, please use a different value");
            faults.invalid(format!("{number} is a reserved port"), "containerPort", &why);
        }
        if !(0..=65535).contains(&number) {
            faults.out_of_bounds(number, 0, 65535, "containerPort");
        }
        if role == Role::Init {
            continue;
        }
        let (protocol, name) = (text(port, "protocol"), text(port, "name"));
        if !["", "TCP"].contains(&protocol) {
            faults.invalid(protocol, "protocol", "");
        }
        if !["", "h2c", "http1"].contains(&name) {
            let why = "Name must be empty, or one of: 'h2c', 'http1'";
            faults.add(format!("Port name {name} is not allowed"), &[""], why);
        }
    }
}

fn check_ids(context: &Value, fields: &[&str], faults: &mut Faults) {
    for field in fields {
        let own = context.get(*field).and_then(Value::as_i64);
        if let Some(id) = own.filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            faults.out_of_bounds(id, 0, i32::MAX, field);
        }
    }
}

fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("/{}", parts.join("/"))
}

fn validate_mounts(mounts: &[Value], volumes: &BTreeMap<&str, &Value>, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        faults.index(index, |faults| {
            let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
            let volume = volumes.get(name).copied().unwrap_or(&Value::Null);
            if volume.is_null() {
                faults.generic("volumeMount has no matching volume", "name");
            }
            let cleaned = clean(path);
            if path.is_empty() {
                faults.missing("mountPath");
            } else if !path.starts_with('/') {
                faults.invalid(path, "mountPath", "");
            } else if RESERVED_PATHS.contains(&cleaned.as_str()) {
                faults.generic(format!("mountPath {cleaned:?} is a reserved path"), "mountPath");
            } else if !seen.insert(cleaned) {
                faults.invalid(format!("{path:?} must be unique"), "mountPath", "");
            }
            if !WRITABLE.iter().any(|kind| has(volume, kind)) && mount["readOnly"] != true {
                faults.generic("volume mount should be readOnly for this type of volume", "readOnly");
            }
            if has(mount, "mountPropagation") {
                let why = format!("Volume Mount Propagation support is disabled, but found volume mount {name} with mount propagation");
                faults.generic(why, "");
            }
            if volume["persistentVolumeClaim"]["readOnly"] == true && mount["readOnly"] != true {
                faults.generic("volume is readOnly but volume mount is not", "readOnly");
            }
        });
    }
}

fn validate_probes(container: &Value, role: Role, port_name: &str, features: &Features, faults: &mut Faults) {
    if role == Role::Init {
        return;
    }
    let probing = role == Role::Serving || features.is_enabled("multi-container-probing");
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[field];
        if !probe.is_object() {
            continue;
        }
        faults.at(field, |faults| {
            if !probing {
                let set: Vec<&str> =
                    probe.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
                faults.disallowed(&set);
                return;
            }
            validate_probe(probe, (role == Role::Serving).then_some(port_name), faults);
            if field == "readinessProbe" {
                validate_times(probe, faults);
            }
        });
    }
}

fn validate_probe(probe: &Value, port_name: Option<&str>, faults: &mut Faults) {
    let kinds = ["httpGet", "tcpSocket", "exec", "grpc"];
    let handlers: Vec<&str> = kinds.into_iter().filter(|kind| has(probe, kind)).collect();
    for kind in ["httpGet", "tcpSocket"].into_iter().filter(|kind| has(probe, kind)) {
        let port = &probe[kind]["port"];
        let field = format!("{kind}.port");
        match port_name {
            Some(name) if port.as_str().is_some_and(|own| !own.is_empty() && own != name) => {
                let own = port.as_str().unwrap_or_default();
                faults.invalid(own, &field, "Probe port must match container port");
            }
            None if port.as_i64().unwrap_or(0) == 0 && port.as_str().unwrap_or_default().is_empty() => {
                faults.invalid(0, &field, "Probe port must be specified");
            }
            _ => {}
        }
    }
    match handlers.len() {
        0 => faults.missing_one_of(&kinds),
        1 => {}
        _ => faults.several_of(&handlers),
    }
}

fn validate_times(probe: &Value, faults: &mut Faults) {
    let number = |field: &str| probe.get(field).and_then(Value::as_i64).unwrap_or(0);
    for (field, low) in [("periodSeconds", 0), ("initialDelaySeconds", 0), ("successThreshold", 1)] {
        if number(field) < low {
            faults.out_of_bounds(number(field), low, i32::MAX, field);
        }
    }
    for field in ["failureThreshold", "timeoutSeconds"] {
        let own = number(field);
        if number("periodSeconds") == 0 {
            if own != 0 {
                faults.generic(format!("{field} is disallowed when periodSeconds is zero"), field);
            }
        } else if own < 1 {
            faults.out_of_bounds(own, 1, i32::MAX, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_reference;

    #[test]
    fn references_of_images() {
        let digest = format!("a.example/b@sha256:{}", "0".repeat(64));
        for good in ["a", "a/b:c", "registry.example:5000/a/b:v1", "localhost/a", digest.as_str()] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "A/b", "a:", "a b", "a@sha256:0", "a@md5:0"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
