//! Who makes a request and what they may do: authenticators, authorizers and the admission steps that belong to them.
//!
//! Everything here decides from [`api::Lookup`], which is memory; nothing asks the network. `rbac` and `node` authorise,
//! `x509` and `token` authenticate, `impersonation` lets a user act as another one.

pub mod forbidden;
pub mod rbac;

#[cfg(test)]
pub(crate) mod tests;
