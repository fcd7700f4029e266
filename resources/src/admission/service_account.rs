//! Pods get a service account and its token. Upstream: `plugin/pkg/admission/serviceaccount`.

use super::{decode, decode_kept, list_mut};
use crate::cells::{list, text};
use api::admission::Awaited;
use api::status::ResourceId;
use api::{Admission, AdmissionRequest, Operation, Status};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount as Account};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The account of pods that name none.
const DEFAULT: &str = "default";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Makes an account's pods use no other secrets than those that it lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour and a bit: from this the server knows tokens whose life it may extend. Upstream:
/// `serviceaccount.WarnOnlyBoundTokenExpirationSeconds`.
const TOKEN_SECONDS: i64 = 3607;
/// Readable for all.
const MODE: i32 = 0o644;

pub(super) struct ServiceAccount;

fn concerns(request: &AdmissionRequest<'_>, operation: Operation, subresource: &str) -> bool {
    request.resource.group.is_empty()
        && request.resource.plural == "pods"
        && (request.operation, request.subresource) == (operation, subresource)
}

fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

fn account_name(pod: &Value) -> &str {
    match text(pod, "/spec/serviceAccountName") {
        "" => DEFAULT,
        name => name,
    }
}

fn find(request: &AdmissionRequest<'_>, name: &str) -> Result<Account, Status> {
    match request.lookup.get("", "serviceaccounts", request.namespace, name) {
        Some(account) => decode_kept(&account),
        None => {
            // Upstream says it in the singular.
            let missing = Status::not_found(ResourceId { group: "", plural: "serviceaccount" }, name);
            Err(request.forbidden(&format!(
                "error looking up service account {}/{name}: {}",
                request.namespace, missing.message
            )))
        }
    }
}

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    /// A controller makes the default account of a namespace soon after it was made.
    fn awaits(&self, request: &AdmissionRequest<'_>) -> Option<Awaited> {
        let wants = concerns(request, Operation::Create, "")
            && !is_mirror(&request.object)
            && account_name(&request.object) == DEFAULT
            && request
                .lookup
                .get("", "namespaces", "", request.namespace)
                .is_some_and(|own| !own.meta.deleting);
        wants.then(|| Awaited {
            group: "",
            plural: "serviceaccounts",
            namespace: request.namespace.to_owned(),
            name: DEFAULT.to_owned(),
        })
    }

    fn mutate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        if concerns(request, Operation::Create, "") && !is_mirror(&request.object) {
            let name = account_name(&request.object).to_owned();
            let account = find(request, &name)?;
            let volume = volume_name(request);
            if let Some(spec) = request.object.get_mut("spec") {
                spec["serviceAccountName"] = name.as_str().into();
                spec["serviceAccount"] = name.into();
                let automount = spec["automountServiceAccountToken"].as_bool();
                if automount.or(account.automount_service_account_token).unwrap_or(true) {
                    mount_token(spec, &volume);
                }
                let secrets = account.image_pull_secrets.unwrap_or_default();
                if list(spec, "/imagePullSecrets").is_empty() && !secrets.is_empty() {
                    spec["imagePullSecrets"] =
                        secrets.iter().map(|secret| json!({"name": secret.name})).collect();
                }
            }
        }
        self.validate(request)
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let is_ephemeral = concerns(request, Operation::Update, "ephemeralcontainers");
        if !is_ephemeral && !concerns(request, Operation::Create, "") {
            return Ok(());
        }
        if !is_ephemeral && is_mirror(&request.object) {
            return check_mirror(&request.object).map_err(|why| request.forbidden(why));
        }
        let name = text(&request.object, "/spec/serviceAccountName");
        if name.is_empty() {
            let pod = text(&request.object, "/metadata/name");
            return Err(request
                .forbidden(&format!("no service account specified for pod {}/{pod}", request.namespace)));
        }
        let account = find(request, name)?;
        let enforce = account.metadata.annotations.as_ref().and_then(|all| all.get(ENFORCE));
        // Every text that upstream's parser takes for true.
        if !enforce.is_some_and(|text| ["1", "t", "T", "true", "TRUE", "True"].contains(&text.as_str())) {
            return Ok(());
        }
        let pod: Pod = decode(&request.object)?;
        match is_ephemeral {
            // Upstream answers these with an error that is no Status, which the server calls internal.
            true => check_ephemeral_secrets(&account, &pod).map_err(Status::internal),
            false => check_secrets(&account, &pod).map_err(|why| request.forbidden(&why)),
        }
    }
}

/// The name of the token's volume: as good as random, and the same for the same request.
fn volume_name(request: &AdmissionRequest<'_>) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hasher = DefaultHasher::new();
    (request.namespace, request.name, request.now.as_nanosecond()).hash(&mut hasher);
    let mut left = hasher.finish();
    let mut name = VOLUME_PREFIX.to_owned();
    for _ in 0..5 {
        name.push(char::from(LETTERS[(left % 27) as usize]));
        left /= 27;
    }
    name
}

/// Mounts the token into every container that has nothing at its place.
fn mount_token(spec: &mut Value, name: &str) {
    let volumes = list(spec, "/volumes").iter();
    let own = volumes.map(|volume| text(volume, "/name")).find(|own| own.starts_with(VOLUME_PREFIX));
    let own = own.map(str::to_owned);
    let has_volume = own.is_some();
    let name = own.as_deref().unwrap_or(name);
    let mut is_used = false;
    for field in ["initContainers", "containers"] {
        for container in spec[field].as_array_mut().into_iter().flatten() {
            let Some(mounts) = list_mut(container, "volumeMounts") else { continue };
            if !mounts.iter().any(|mount| mount["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                is_used = true;
            }
        }
    }
    if is_used
        && !has_volume
        && let Some(volumes) = list_mut(spec, "volumes")
    {
        volumes.push(json!({"name": name, "projected": {"defaultMode": MODE, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

/// A pod that only mirrors a static one of a node must not give the node access to secrets.
fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    let spec = &pod["spec"];
    let containers = ["containers", "initContainers", "ephemeralContainers"];
    let mut environments = containers.iter().flat_map(|field| list(spec, &format!("/{field}")));
    let in_environment = environments.any(|own| names_secret(&own["env"]) || names_secret(&own["envFrom"]));
    if in_environment || names_secret(&spec["volumes"]) || !list(spec, "/imagePullSecrets").is_empty() {
        return Err("a mirror pod may not reference secrets");
    }
    let sources = list(spec, "/volumes").iter().flat_map(|volume| list(volume, "/projected/sources"));
    if sources.into_iter().any(|source| !source["serviceAccountToken"].is_null()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Whether anything in a part of a pod names a secret. Upstream: `podutil.VisitPodSecretNames`.
fn names_secret(part: &Value) -> bool {
    const FIELDS: [&str; 5] = ["secret", "secretName", "secretRef", "secretKeyRef", "nodePublishSecretRef"];
    match part {
        Value::Array(items) => items.iter().any(names_secret),
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            (FIELDS.contains(&name.as_str()) && !value.is_null()) || names_secret(value)
        }),
        _ => false,
    }
}

fn mountable(account: &Account) -> BTreeSet<&str> {
    account.secrets.iter().flatten().filter_map(|secret| secret.name.as_deref()).collect()
}

fn check_secrets(account: &Account, pod: &Pod) -> Result<(), String> {
    let (allowed, name) = (mountable(account), account.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &pod.spec else { return Ok(()) };
    for volume in spec.volumes.iter().flatten() {
        let secret = volume.secret.as_ref().and_then(|own| own.secret_name.as_deref());
        if let Some(secret) = secret.filter(|own| !allowed.contains(own)) {
            return Err(format!(
                "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does not reference that secret"
            ));
        }
    }
    let init = spec.init_containers.iter().flatten().map(|own| ("init container", own));
    for (what, container) in init.chain(spec.containers.iter().map(|own| ("container", own))) {
        let environment = (container.env.as_deref(), container.env_from.as_deref());
        check_environment(&allowed, name, what, &container.name, environment)?;
    }
    let pull: BTreeSet<&str> =
        account.image_pull_secrets.iter().flatten().map(|own| own.name.as_str()).collect();
    for (at, own) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if !pull.contains(own.name.as_str()) {
            return Err(format!(
                "imagePullSecrets[{at}].name=\"{}\" is not allowed because service account {name} does not reference that imagePullSecret",
                own.name
            ));
        }
    }
    Ok(())
}

fn check_ephemeral_secrets(account: &Account, pod: &Pod) -> Result<(), String> {
    let (allowed, name) = (mountable(account), account.metadata.name.as_deref().unwrap_or_default());
    let containers = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    for own in containers {
        let environment = (own.env.as_deref(), own.env_from.as_deref());
        check_environment(&allowed, name, "ephemeral container", &own.name, environment)?;
    }
    Ok(())
}

type Environment<'a> = (
    Option<&'a [k8s_openapi::api::core::v1::EnvVar]>,
    Option<&'a [k8s_openapi::api::core::v1::EnvFromSource]>,
);

fn check_environment(
    allowed: &BTreeSet<&str>,
    account: &str,
    what: &str,
    container: &str,
    (env, env_from): Environment<'_>,
) -> Result<(), String> {
    let refuse = |place: &str, secret: &str| {
        Err(format!(
            "{what} {container} with {place} referencing secret.secretName=\"{secret}\" is not allowed because service account {account} does not reference that secret"
        ))
    };
    for own in env.into_iter().flatten() {
        let secret = own.value_from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
        if let Some(secret) = secret.filter(|secret| !allowed.contains(secret.name.as_str())) {
            return refuse(&format!("envVar {}", own.name), &secret.name);
        }
    }
    for own in env_from.into_iter().flatten() {
        if let Some(secret) = own.secret_ref.as_ref().filter(|own| !allowed.contains(own.name.as_str())) {
            return refuse("envFrom", &secret.name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{create, update};
    use super::*;
    use crate::testing::Objects;

    fn accounts(extra: Value) -> Objects {
        let mut own = json!({"metadata": {"name": "default", "namespace": "n"}});
        own.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Objects::default().with("", "serviceaccounts", own)
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p"}, "spec": spec})
    }

    #[test]
    fn pods_get_the_default_account_and_its_token() {
        let mounted = json!([{"name": "x", "mountPath": MOUNT_PATH}]);
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": mounted}],
            "initContainers": [{"name": "i"}], "volumes": [{"name": "x"}]});
        let made = create("pods").run(&ServiceAccount, pod(spec), &accounts(json!({}))).unwrap().object;
        let spec = &made["spec"];
        assert_eq!(
            (&spec["serviceAccountName"], &spec["serviceAccount"]),
            (&json!("default"), &json!("default"))
        );
        let name = spec["volumes"][1]["name"].as_str().unwrap();
        assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
        let mount = json!([{"name": name, "readOnly": true, "mountPath": MOUNT_PATH}]);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"], mounted);
        let sources = list(spec, "/volumes/1/projected/sources");
        let kinds: Vec<_> = sources
            .iter()
            .map(|source| source.as_object().unwrap().keys().next().unwrap().as_str())
            .collect();
        assert_eq!(kinds, ["serviceAccountToken", "configMap", "downwardAPI"]);
        assert_eq!(spec["volumes"][1]["projected"]["defaultMode"], 420);
        assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    }

    #[test]
    fn whether_the_token_is_mounted() {
        let check = |spec: Value, account: Value, expect: bool| {
            let made = create("pods").run(&ServiceAccount, pod(spec), &accounts(account)).unwrap().object;
            assert_eq!(!list(&made, "/spec/containers/0/volumeMounts").is_empty(), expect);
        };
        let spec = |automount: Value| json!({"containers": [{"name": "a"}], "automountServiceAccountToken": automount});
        check(spec(Value::Null), json!({}), true);
        check(spec(Value::Null), json!({"automountServiceAccountToken": false}), false);
        check(spec(json!(true)), json!({"automountServiceAccountToken": false}), true);
        check(spec(json!(false)), json!({}), false);
    }

    #[test]
    fn pull_secrets_are_the_accounts_unless_the_pod_has_some() {
        let account = || accounts(json!({"imagePullSecrets": [{"name": "s"}]}));
        let check = |spec: Value, expect: Value| {
            create("pods").admits(&ServiceAccount, pod(spec), &account(), "/spec/imagePullSecrets", expect);
        };
        check(json!({"containers": []}), json!([{"name": "s"}]));
        check(json!({"imagePullSecrets": [{"name": "t"}]}), json!([{"name": "t"}]));
    }

    #[test]
    fn the_account_must_exist() {
        create("pods").refuses(
            &ServiceAccount,
            pod(json!({"serviceAccountName": "a"})),
            &accounts(json!({})),
            403,
            "pods \"p\" is forbidden: error looking up service account n/a: serviceaccount \"a\" not found",
        );
        assert!(
            update("pods", "", &pod(json!({})))
                .run(&ServiceAccount, pod(json!({})), &Objects::default())
                .is_ok()
        );
    }

    #[test]
    fn mirror_pods_have_no_access() {
        let check = |spec: Value, expect: Option<&str>| {
            let mut pod = pod(spec);
            pod["metadata"]["annotations"] = json!({MIRROR: "x"});
            let outcome = create("pods").run(&ServiceAccount, pod.clone(), &Objects::default());
            if expect.is_none() {
                assert_eq!(outcome.as_ref().unwrap().object, pod);
            }
            let expect = expect.map(|why| format!("pods \"p\" is forbidden: {why}"));
            assert_eq!(outcome.err().map(|status| status.message), expect);
        };
        let secrets = Some("a mirror pod may not reference secrets");
        check(json!({"containers": [{"name": "a"}]}), None);
        check(json!({"serviceAccountName": "a"}), Some("a mirror pod may not reference service accounts"));
        check(json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), secrets);
        check(json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}), secrets);
        check(json!({"imagePullSecrets": [{"name": "s"}]}), secrets);
        check(
            json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            Some("a mirror pod may not use ServiceAccountToken volume projections"),
        );
    }

    #[test]
    fn accounts_that_list_their_secrets() {
        let strict = || {
            accounts(
                json!({"metadata": {"name": "default", "namespace": "n", "annotations": {ENFORCE: "true"}},
                "secrets": [{"name": "ok"}], "imagePullSecrets": [{"name": "pull"}]}),
            )
        };
        let end = "is not allowed because service account default does not reference that";
        let check = |spec: Value, expect: Option<String>| {
            let outcome = create("pods").run(&ServiceAccount, pod(spec), &strict());
            let expect = expect.map(|why| format!("pods \"p\" is forbidden: {why}"));
            assert_eq!(outcome.err().map(|status| status.message), expect);
        };
        let volume = |name: &str| json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": name}}]});
        check(volume("ok"), None);
        check(volume("no"), Some(format!("volume with secret.secretName=\"no\" {end} secret")));
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]);
        check(
            json!({"containers": [{"name": "c", "env": env}]}),
            Some(format!("container c with envVar E referencing secret.secretName=\"no\" {end} secret")),
        );
        check(
            json!({"containers": [], "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "no"}}]}]}),
            Some(format!("init container i with envFrom referencing secret.secretName=\"no\" {end} secret")),
        );
        check(
            json!({"containers": [], "imagePullSecrets": [{"name": "no"}]}),
            Some(format!("imagePullSecrets[0].name=\"no\" {end} imagePullSecret")),
        );
    }
}
