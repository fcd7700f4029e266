//! Who may approve, sign and attest for a signer of certificates. Upstream:
//! `plugin/pkg/admission/certificates/{approval,signing,ctbattest}`, `pkg/certauthorization`.

use super::escalation::only_garbage_collection;
use super::{Index, Rbac};
use crate::hooks::{Attributes, Decision};
use api::user::GROUP_MASTERS;
use api::{Admission, AdmissionRequest, Operation, Status, UserInfo};
use std::sync::Arc;

const GROUP: &str = "certificates.k8s.io";

/// One of the plugins that ask for a right on the synthetic resource `signers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignerRight {
    /// Changing the approval of a certificate signing request.
    Approve,
    /// Giving out its certificate, or saying that none comes.
    Sign,
    /// Writing a trust bundle of a signer.
    Attest,
}

impl SignerRight {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Approve, Self::Sign, Self::Attest];

    /// The signer whose right a request needs, if it needs one. Changes ask with the signer that the object had.
    fn signer<'a>(self, request: &'a AdmissionRequest<'_>) -> Option<&'a str> {
        let (plural, subresource) = match self {
            Self::Approve => ("certificatesigningrequests", "approval"),
            Self::Sign => ("certificatesigningrequests", "status"),
            Self::Attest => ("clustertrustbundles", ""),
        };
        let concerned = request.resource.group == GROUP
            && request.resource.plural == plural
            && request.subresource == subresource;
        if !concerned {
            return None;
        }
        let (new, old) = (&request.object, request.old);
        match self {
            Self::Approve => old?["spec"]["signerName"].as_str(),
            Self::Sign => {
                let old = old?;
                let is_same = ["certificate", "conditions"]
                    .iter()
                    .all(|field| old["status"][field] == new["status"][field]);
                old["spec"]["signerName"].as_str().filter(|_| !is_same)
            }
            Self::Attest if old.is_some_and(|old| only_garbage_collection(new, old)) => None,
            Self::Attest => new["spec"]["signerName"].as_str().filter(|name| !name.is_empty()),
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Sign => "sign",
            Self::Attest => "attest",
        }
    }
}

/// The plugin of a right.
pub struct SignerCheck {
    /// Which one.
    pub right: SignerRight,
    /// Who decides.
    pub rbac: Arc<Rbac>,
}

/// Whether the user has the right for this signer, or for all of its domain.
fn is_allowed(index: &Index, user: &UserInfo, verb: &str, signer: &str) -> bool {
    let asks = |name: &str| {
        let asked = Attributes {
            user,
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            path: "",
            is_resource: true,
            label_selector: "",
            field_selector: "",
        };
        index.decide(&asked).decision == Decision::Allow
    };
    let domain = signer.split('/').next().unwrap_or_default();
    user.is_in(GROUP_MASTERS) || asks(signer) || asks(&format!("{domain}/*"))
}

impl Admission for SignerCheck {
    fn name(&self) -> &'static str {
        match self.right {
            SignerRight::Approve => "CertificateApproval",
            SignerRight::Sign => "CertificateSigning",
            SignerRight::Attest => "ClusterTrustBundleAttest",
        }
    }

    fn handles(&self, operation: Operation) -> bool {
        let creates = self.right == SignerRight::Attest && operation == Operation::Create;
        creates || operation == Operation::Update
    }

    fn validate(&self, request: &mut AdmissionRequest<'_>) -> Result<(), Status> {
        let Some(signer) = self.right.signer(request) else { return Ok(()) };
        let verb = self.right.verb();
        if is_allowed(&self.rbac.index(), request.user, verb, signer) {
            return Ok(());
        }
        let about = if self.right == SignerRight::Attest { "for" } else { "requests with" };
        let why = format!("user not permitted to {verb} {about} signerName \"{signer}\"");
        Err(request.forbidden(&why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Cluster;
    use api::{Resource, Scope};
    use serde_json::{Value, json};

    /// Somebody may use every right on `a.example/one` and on all of `b.example`.
    fn rbac() -> (Arc<Cluster>, Arc<Rbac>) {
        let cluster = Arc::new(Cluster::default());
        let rule = json!({"verbs": ["approve", "sign", "attest"], "apiGroups": [GROUP], "resources": ["signers"],
            "resourceNames": ["a.example/one", "b.example/*"]});
        let role = json!({"metadata": {"name": "r"}, "rules": [rule]});
        cluster.put(super::super::GROUP, "clusterroles", role);
        let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "somebody"}],
            "roleRef": {"apiGroup": super::super::GROUP, "kind": "ClusterRole", "name": "r"}});
        cluster.put(super::super::GROUP, "clusterrolebindings", binding);
        (cluster.clone(), Arc::new(Rbac::new(cluster)))
    }

    fn check(right: SignerRight, groups: &[&str], new: Value, old: Option<Value>, expect: Option<&str>) {
        let (cluster, rbac) = rbac();
        let (plural, subresource) = match right {
            SignerRight::Approve => ("certificatesigningrequests", "approval"),
            SignerRight::Sign => ("certificatesigningrequests", "status"),
            SignerRight::Attest => ("clustertrustbundles", ""),
        };
        let resource = Resource::new(GROUP, "v1", "X", plural, Scope::Cluster);
        let groups = groups.iter().map(|own| (*own).to_owned()).collect();
        let user = UserInfo { name: "somebody".to_owned(), groups, ..UserInfo::default() };
        let mut request = AdmissionRequest {
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            resource: &resource,
            subresource,
            kind: (GROUP, "v1", "X"),
            namespace: "",
            name: "x",
            object: new,
            old: old.as_ref(),
            options: &Value::Null,
            user: &user,
            dry_run: false,
            lookup: &*cluster,
            now: jiff::Timestamp::UNIX_EPOCH,
            warnings: Vec::new(),
            annotations: std::collections::BTreeMap::new(),
            reinvocation: Default::default(),
        };
        let outcome = SignerCheck { right, rbac }.validate(&mut request);
        let expect =
            expect.map(|why| format!("{plural}.{GROUP} \"x\" is forbidden: user not permitted to {why}"));
        assert_eq!(outcome.err().map(|status| status.message), expect);
    }

    fn object(signer: &str, status: Value) -> Value {
        json!({"metadata": {"name": "x"}, "spec": {"signerName": signer}, "status": status})
    }

    #[test]
    fn rights_on_signers() {
        for signer in ["a.example/one", "b.example/any"] {
            let old = object(signer, json!({}));
            check(SignerRight::Approve, &[], old.clone(), Some(old.clone()), None);
            check(SignerRight::Sign, &[], object(signer, json!({"certificate": "x"})), Some(old), None);
            check(SignerRight::Attest, &[], object(signer, json!({})), None, None);
        }
        let other = || object("a.example/two", json!({}));
        let signed = || object("a.example/two", json!({"certificate": "x"}));
        let why = "approve requests with signerName \"a.example/two\"";
        check(SignerRight::Approve, &[], object("a.example/one", json!({})), Some(other()), Some(why));
        check(SignerRight::Approve, &[GROUP_MASTERS], other(), Some(other()), None);
        let why = "sign requests with signerName \"a.example/two\"";
        check(SignerRight::Sign, &[], signed(), Some(other()), Some(why));
        check(SignerRight::Sign, &[], other(), Some(other()), None);
        let why = "attest for signerName \"a.example/two\"";
        check(SignerRight::Attest, &[], other(), None, Some(why));
        check(SignerRight::Attest, &[], other(), Some(other()), None);
        check(SignerRight::Attest, &[], object("", json!({})), None, None);
    }
}
