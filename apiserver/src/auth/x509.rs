//! Client certificates: the common name is the user, the organisations are the groups.
//! Upstream: `apiserver/pkg/authentication/request/x509` (`CommonNameUserConversion`).
//!
//! The chain was verified against the client CA by the TLS handshake, including its use as a client; what is left to do is
//! to read the subject.

use crate::hooks::{Authenticate, Identity, PeerCertificates};
use api::{Status, UserInfo};
use aws_lc_rs::digest;
use futures::future::BoxFuture;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The UID of a user in the subject. Upstream: `x509.oidClusterIDUID`.
const OID_UID: &str = "1.3.6.1.4.1.57683.2";

/// The authenticator of client certificates.
pub struct ClientCertificates;

impl Authenticate for ClientCertificates {
    fn authenticate<'a>(
        &'a self,
        head: &'a http::request::Parts,
    ) -> BoxFuture<'a, Result<Option<Identity>, Status>> {
        let leaf = head.extensions.get::<PeerCertificates>().and_then(|chain| chain.0.first());
        let user = leaf.and_then(|leaf| user_of(leaf));
        Box::pin(std::future::ready(Ok(user.map(Identity::from))))
    }
}

/// The user that a certificate names; `None` if it has no common name.
pub fn user_of(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|name| !name.is_empty())?;
    let organizations = subject.iter_organization().filter_map(|value| value.as_str().ok());
    let mut groups: Vec<String> = organizations.map(str::to_owned).collect();
    super::add_authenticated(&mut groups);
    let uid = subject.iter_attributes().find(|attribute| attribute.attr_type().to_id_string() == OID_UID);
    let uid = uid.and_then(|attribute| attribute.as_str().ok()).unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, der);
    let credential = format!("X509SHA256={}", super::hex(hash.as_ref()));
    Some(UserInfo {
        name: name.to_owned(),
        uid: uid.to_owned(),
        groups,
        extra: [(super::EXTRA_CREDENTIAL.to_owned(), vec![credential])].into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn check(common_name: Option<&str>, organizations: &[&str], expect: Option<(&str, &[&str])>) {
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        if let Some(name) = common_name {
            subject.push(DnType::CommonName, name);
        }
        for organization in organizations {
            subject.push(DnType::OrganizationName, *organization);
        }
        params.distinguished_name = subject;
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let user = user_of(certificate.der());
        let groups = |user: &UserInfo| user.groups.clone();
        assert_eq!(
            user.as_ref().map(|user| (user.name.clone(), groups(user))),
            expect.map(|(name, groups)| {
                (name.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect())
            })
        );
        if let Some(user) = user {
            assert!(user.extra[crate::auth::EXTRA_CREDENTIAL][0].starts_with("X509SHA256="));
        }
    }

    #[test]
    fn subjects() {
        check(Some("jane"), &[], Some(("jane", &["system:authenticated"])));
        check(
            Some("system:node:a"),
            &["system:nodes"],
            Some(("system:node:a", &["system:nodes", "system:authenticated"])),
        );
        check(None, &["system:masters"], None);
    }

    #[test]
    fn garbage_is_nobody() {
        assert!(user_of(b"\x30\x03garbage").is_none());
        assert!(user_of(b"").is_none());
    }
}
