//! Who makes a request and what they may do: authenticators, authorizers and the admission steps that belong to them.
//!
//! Everything here decides from [`api::Lookup`], which is memory; nothing asks the network. `rbac` and `node` authorise,
//! `x509` and `token` authenticate, `impersonation` lets a user act as another one.

pub mod forbidden;
pub mod impersonation;
pub mod node;
pub mod rbac;
pub mod token;
pub mod x509;

use api::user::{GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED};

/// The extra that names the credential of a request. Upstream: `user.CredentialIDKey`.
pub(crate) const EXTRA_CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Puts a known user into `system:authenticated`, unless that was decided already.
pub(crate) fn add_authenticated(groups: &mut Vec<String>) {
    if !groups.iter().any(|group| group == GROUP_AUTHENTICATED || group == GROUP_UNAUTHENTICATED) {
        groups.push(GROUP_AUTHENTICATED.to_owned());
    }
}

/// Bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
