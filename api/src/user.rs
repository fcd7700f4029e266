//! Who makes a request.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An authenticated user. It travels in the extensions of an `http::Request`, where nothing from the wire can put it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Such as `system:serviceaccount:default:default`.
    pub name: String,
    /// Unique over time, where the authenticator knows one.
    pub uid: String,
    /// Such as `system:masters`.
    pub groups: Vec<String>,
    /// More facts from the authenticator, such as the pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group that may do anything.
pub const GROUP_MASTERS: &str = "system:masters";
/// Everybody who is known.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Everybody who is not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The name of who is not known.
pub const USER_ANONYMOUS: &str = "system:anonymous";

impl UserInfo {
    /// A component of the control plane, known by its name (`system:kube-scheduler`).
    pub fn component(name: &str) -> Self {
        Self { name: name.to_owned(), groups: vec![GROUP_AUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// A service account of a namespace, as its tokens name it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                GROUP_AUTHENTICATED.to_owned(),
            ],
            ..Self::default()
        }
    }

    /// The agent of a node.
    pub fn node(node_name: &str) -> Self {
        Self {
            name: format!("system:node:{node_name}"),
            groups: vec!["system:nodes".to_owned(), GROUP_AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether the user is in this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}
