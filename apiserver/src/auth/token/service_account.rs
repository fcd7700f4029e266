//! Tokens of service accounts: JWTs that are bound to an object and die with it.
//! Upstream: `pkg/serviceaccount/{claims,jwt}.go`.

use super::keys::Keys;
use super::{VerifiedCache, digest_of};
use crate::auth::EXTRA_CREDENTIAL;
use api::{Lookup, Object, UserInfo};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How far the clocks of two machines may differ, and how long a token outlives its deleted object, in seconds.
/// Upstream: go-jose's `DefaultLeeway`.
const LEEWAY_SECONDS: i64 = 60;
/// What kubelets ask for where a pod says nothing; such a token in truth lives longer and is only warned about.
const WARN_ONLY_SECONDS: i64 = 3607;
/// How long such a token lives, in seconds.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Name and UID of an object that a token names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

impl Reference {
    /// To an object.
    pub fn to(object: &Object) -> Self {
        Self { name: object.meta.name().to_owned(), uid: object.meta.uid.to_string() }
    }
}

/// The private claim `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// Namespace of the account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The node that the pod runs on, or that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    #[serde(default)]
    pub serviceaccount: Reference,
    /// From when on its use is worth a warning, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Audiences: a list, or in the tokens of others one text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    Many(Vec<String>),
    One(String),
}

/// The claims of a token. Those that upstream's legacy tokens do not have are optional.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<Audience>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(default)]
    iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    jti: String,
    #[serde(rename = "kubernetes.io", default)]
    kubernetes: KubernetesClaims,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(default)]
    sub: String,
}

/// What a token is bound to. The node of a pod is told along with it; it may be known by name only.
#[derive(Clone, Debug, Default)]
pub enum Bound {
    /// To nothing but its account.
    #[default]
    Account,
    /// To a pod.
    Pod {
        /// The pod.
        pod: Reference,
        /// Its node, once it has one.
        node: Option<Reference>,
    },
    /// To a secret.
    Secret(Reference),
    /// To a node.
    Node(Reference),
}

/// A token that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Who.
    pub user: UserInfo,
    /// For which of the asked audiences.
    pub audiences: Vec<String>,
}

/// What a server issues and accepts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who issues; the first signs new tokens, every one is accepted. It should be an `https` URL.
    pub issuers: Vec<String>,
    /// What tokens for this API server are meant for.
    pub audiences: Vec<String>,
    /// No token lives longer, in seconds. Upstream: `--service-account-max-token-expiration`.
    pub seconds_max: Option<i64>,
    /// Whether tokens of kubelets outlive what was asked. Upstream: `--service-account-extend-token-expiration`.
    pub extends: bool,
}

/// Issues and verifies.
pub struct ServiceAccounts {
    keys: Keys,
    options: Options,
    lookup: Arc<dyn Lookup>,
    verified: VerifiedCache<Claims>,
}

impl ServiceAccounts {
    /// With these keys, over these objects.
    pub fn new(keys: Keys, options: Options, lookup: Arc<dyn Lookup>) -> Self {
        Self { keys, options, lookup, verified: VerifiedCache::default() }
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// What it was made with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Signs a token for an account: the token, and its id.
    ///
    /// # Errors
    /// The library cannot sign.
    pub fn issue(
        &self,
        account: &Object,
        bound: Bound,
        audiences: Vec<String>,
        seconds: i64,
        now: Timestamp,
    ) -> Result<(String, String), jsonwebtoken::errors::Error> {
        let own = audiences.iter().all(|audience| self.options.audiences.contains(audience));
        let (mut lives, mut warnafter) = (seconds, None);
        let now = now.as_second();
        if self.options.extends && matches!(bound, Bound::Pod { .. }) && seconds == WARN_ONLY_SECONDS && own {
            (lives, warnafter) = (EXTENDED_SECONDS, Some(now + seconds));
        }
        let mut kubernetes = KubernetesClaims {
            namespace: account.meta.namespace().to_owned(),
            serviceaccount: Reference::to(account),
            warnafter,
            ..KubernetesClaims::default()
        };
        match bound {
            Bound::Account => {}
            Bound::Pod { pod, node } => (kubernetes.pod, kubernetes.node) = (Some(pod), node),
            Bound::Secret(secret) => kubernetes.secret = Some(secret),
            Bound::Node(node) => kubernetes.node = Some(node),
        }
        let jti = uuid::Uuid::new_v4().to_string();
        let claims = Claims {
            aud: Some(Audience::Many(audiences)),
            exp: Some(now + lives),
            iat: Some(now),
            iss: self.options.issuers.first().cloned().unwrap_or_default(),
            jti: jti.clone(),
            sub: format!("system:serviceaccount:{}:{}", account.meta.namespace(), account.meta.name()),
            nbf: Some(now),
            kubernetes,
        };
        Ok((self.keys.sign(&claims)?, jti))
    }

    /// Who a token speaks for, where one of `audiences` is meant. `Ok(None)`: not one of our issuers.
    ///
    /// # Errors
    /// Upstream's words for a token of ours that is wrong, expired, or bound to what is gone.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Verified>, String> {
        let ours = issuer_of(token).is_some_and(|issuer| self.options.issuers.contains(&issuer));
        if !ours {
            return Ok(None);
        }
        let digest = digest_of(token);
        let claims = match self.verified.get(&digest) {
            Some(claims) => claims,
            None => {
                let claims: Claims = self.keys.verify(token).map_err(|error| error.to_string())?;
                self.verified.put(digest, claims)
            }
        };
        let own = match &claims.aud {
            Some(Audience::Many(list)) if !list.is_empty() => list.as_slice(),
            Some(Audience::One(one)) => std::slice::from_ref(one),
            _ => self.options.audiences.as_slice(),
        };
        let audiences_meant: Vec<_> =
            own.iter().filter(|audience| audiences.contains(audience)).cloned().collect();
        if audiences_meant.is_empty() {
            return Err(format!(
                "token audiences {} is invalid for the target audiences {}",
                quoted(own),
                quoted(audiences)
            ));
        }
        check_times(&claims, now.as_second())?;
        check_bound(&claims, &*self.lookup, now)?;
        Ok(Some(Verified { user: user_of(&claims), audiences: audiences_meant }))
    }
}

fn quoted(list: &[String]) -> String {
    format!("[{}]", list.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" "))
}

/// The issuer that a token names, unverified.
fn issuer_of(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&json).ok().map(|Issuer { iss }| iss)
}

fn check_times(claims: &Claims, now: i64) -> Result<(), String> {
    if claims.nbf.is_some_and(|from| now + LEEWAY_SECONDS < from) {
        return Err("service account token is not valid yet".to_owned());
    }
    if claims.exp.is_some_and(|until| now - LEEWAY_SECONDS > until) {
        return Err("service account token has expired".to_owned());
    }
    if claims.iat.is_some_and(|at| now + LEEWAY_SECONDS < at) {
        return Err("service account token is issued in the future".to_owned());
    }
    Ok(())
}

/// When the deletion of an object was asked for, if it was.
fn deleted_at(object: &Object) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Partial {
        metadata: PartialMeta,
    }
    #[derive(Deserialize)]
    struct PartialMeta {
        #[serde(rename = "deletionTimestamp")]
        deletion_timestamp: Option<Timestamp>,
    }
    if !object.meta.deleting {
        return None;
    }
    object.decode::<Partial>().ok()?.metadata.deletion_timestamp
}

fn check_bound(claims: &Claims, lookup: &dyn Lookup, now: Timestamp) -> Result<(), String> {
    let own = &claims.kubernetes;
    let gone_before = now.as_second() - LEEWAY_SECONDS;
    let gone = |object: &Object| deleted_at(object).is_some_and(|at| at.as_second() < gone_before);
    let (namespace, name) = (own.namespace.as_str(), own.serviceaccount.name.as_str());
    let account = lookup
        .get("", "serviceaccounts", namespace, name)
        .ok_or_else(|| format!("serviceaccounts \"{name}\" not found"))?;
    if *account.meta.uid != *own.serviceaccount.uid {
        return Err(format!(
            "service account UID ({}) does not match claim ({})",
            account.meta.uid, own.serviceaccount.uid
        ));
    }
    if gone(&account) {
        return Err(format!("service account {namespace}/{name} has been deleted"));
    }
    // The node of a pod-bound token is told for information only.
    let node = own.node.as_ref().filter(|_| own.pod.is_none());
    let bound = [
        ("secret", "secrets", namespace, own.secret.as_ref()),
        ("pod", "pods", namespace, own.pod.as_ref()),
        ("node", "nodes", "", node),
    ];
    for (word, plural, namespace, reference) in bound {
        let Some(reference) = reference else { continue };
        let object = lookup.get("", plural, namespace, &reference.name);
        let Some(object) = object.filter(|object| !gone(object)) else {
            return Err("service account token has been invalidated".to_owned());
        };
        if *object.meta.uid != *reference.uid {
            let (found, claimed) = (&object.meta.uid, &reference.uid);
            return Err(format!(
                "{word} UID ({found}) does not match service account {word} ref claim ({claimed})"
            ));
        }
    }
    Ok(())
}

fn user_of(claims: &Claims) -> UserInfo {
    let own = &claims.kubernetes;
    let mut user = UserInfo::service_account(&own.namespace, &own.serviceaccount.name);
    user.uid.clone_from(&own.serviceaccount.uid);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    if !claims.jti.is_empty() {
        extra(EXTRA_CREDENTIAL, &format!("JTI={}", claims.jti));
    }
    for (word, reference) in [("pod", &own.pod), ("node", &own.node)] {
        if let Some(reference) = reference {
            extra(&format!("authentication.kubernetes.io/{word}-name"), &reference.name);
            extra(&format!("authentication.kubernetes.io/{word}-uid"), &reference.uid);
        }
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Cluster;
    use serde_json::json;

    const API: &str = "https://kubernetes.default.svc";

    fn object(namespace: &str, name: &str, uid: &str) -> serde_json::Value {
        json!({"metadata": {"namespace": namespace, "name": name, "uid": uid}})
    }

    fn cluster() -> Arc<Cluster> {
        let cluster = Cluster::default();
        cluster.put("", "serviceaccounts", object("a", "bot", "u1"));
        cluster.put("", "pods", object("a", "p", "u2"));
        cluster.put("", "nodes", object("", "n", "u3"));
        Arc::new(cluster)
    }

    fn accounts(cluster: &Arc<Cluster>) -> ServiceAccounts {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let options = Options {
            issuers: vec![API.to_owned()],
            audiences: vec![API.to_owned()],
            seconds_max: None,
            extends: true,
        };
        ServiceAccounts::new(Keys::from_pem(&pem, "").unwrap(), options, cluster.clone())
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn reference(name: &str, uid: &str) -> Reference {
        Reference { name: name.to_owned(), uid: uid.to_owned() }
    }

    fn in_pod() -> Bound {
        Bound::Pod { pod: reference("p", "u2"), node: Some(reference("n", "u3")) }
    }

    #[test]
    fn a_token_says_who_and_dies_with_what_it_is_bound_to() {
        let cluster = cluster();
        let accounts = accounts(&cluster);
        let account = cluster.get("", "serviceaccounts", "a", "bot").unwrap();
        let audience = vec![API.to_owned()];
        let (token, id) = accounts.issue(&account, in_pod(), audience.clone(), 600, at(0)).unwrap();
        let check = |token: &str, second, expect: Result<Option<&str>, &str>| {
            let found = accounts.verify(token, &audience, at(second));
            let found = found.map(|verified| verified.map(|verified| verified.user.name));
            assert_eq!(found, expect.map(|name| name.map(str::to_owned)).map_err(str::to_owned));
        };
        let bot = Ok(Some("system:serviceaccount:a:bot"));
        check(&token, 0, bot);
        check(&token, 659, bot);
        check(&token, 661, Err("service account token has expired"));
        check(&token, -61, Err("service account token is not valid yet"));
        check("abc", 0, Ok(None));
        let user = accounts.verify(&token, &audience, at(0)).unwrap().unwrap().user;
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(user.extra["authentication.kubernetes.io/node-uid"], ["u3"]);
        assert_eq!(user.extra["authentication.kubernetes.io/credential-id"], [format!("JTI={id}")]);
        cluster.remove("", "nodes", "", "n");
        check(&token, 0, bot);
        let mut deleting = object("a", "p", "u2");
        deleting["metadata"]["deletionTimestamp"] = at(10).to_string().into();
        cluster.put("", "pods", deleting);
        check(&token, 70, bot);
        check(&token, 71, Err("service account token has been invalidated"));
        cluster.put("", "pods", object("a", "p", "u9"));
        check(&token, 0, Err("pod UID (u9) does not match service account pod ref claim (u2)"));
        cluster.remove("", "pods", "a", "p");
        check(&token, 0, Err("service account token has been invalidated"));
        cluster.put("", "serviceaccounts", object("a", "bot", "u8"));
        check(&token, 0, Err("service account UID (u8) does not match claim (u1)"));
        cluster.remove("", "serviceaccounts", "a", "bot");
        check(&token, 0, Err("serviceaccounts \"bot\" not found"));
    }

    #[test]
    fn a_token_for_others_is_not_for_us() {
        let cluster = cluster();
        let accounts = accounts(&cluster);
        let account = cluster.get("", "serviceaccounts", "a", "bot").unwrap();
        let vault = vec!["vault".to_owned()];
        let (token, _) = accounts.issue(&account, Bound::Account, vault.clone(), 600, at(0)).unwrap();
        let error = accounts.verify(&token, &[API.to_owned()], at(0)).unwrap_err();
        assert_eq!(
            error,
            format!("token audiences [\"vault\"] is invalid for the target audiences [\"{API}\"]")
        );
        assert_eq!(accounts.verify(&token, &vault, at(0)).unwrap().unwrap().audiences, vault);
        let another = super::tests::accounts(&cluster);
        assert!(another.verify(&token, &vault, at(0)).is_err());
    }

    #[test]
    fn what_kubelets_ask_for_lives_longer() {
        let cluster = cluster();
        let accounts = accounts(&cluster);
        let account = cluster.get("", "serviceaccounts", "a", "bot").unwrap();
        let audience = vec![API.to_owned()];
        let (token, _) = accounts.issue(&account, in_pod(), audience.clone(), 3607, at(0)).unwrap();
        assert!(accounts.verify(&token, &audience, at(4000)).is_ok());
        let (token, _) = accounts.issue(&account, in_pod(), audience.clone(), 3600, at(0)).unwrap();
        assert!(accounts.verify(&token, &audience, at(4000)).is_err());
    }
}
