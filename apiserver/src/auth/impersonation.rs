//! Acting as somebody else: the `Impersonate-*` headers. Upstream:
//! `apiserver/pkg/endpoints/filters/impersonation`.

use super::forbidden::forbidden;
use crate::hooks::{Attributes, Authenticate, Authorize, Decision, Identity};
use api::user::{GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_UNAUTHENTICATED, USER_ANONYMOUS};
use api::{Status, UserInfo};
use futures::future::BoxFuture;
use http::HeaderMap;
use std::sync::Arc;

const HEADER_USER: &str = "impersonate-user";
const HEADER_GROUP: &str = "impersonate-group";
const HEADER_UID: &str = "impersonate-uid";
const HEADER_EXTRA_PREFIX: &str = "impersonate-extra-";

/// More groups and extra values than this are refused: each one is authorised.
const PARTS_LEN_MAX: usize = 256;

/// One thing that the user wants to be, as authorisation is asked about it.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    group: &'static str,
    resource: &'static str,
    subresource: String,
    namespace: String,
    name: String,
}

/// The wanted user and every part that must be allowed.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    user: UserInfo,
    parts: Vec<Part>,
}

/// Asks the authenticators in order and then does what the headers ask for. It stands for all of them, because
/// the one who impersonates may have come by any.
pub struct Impersonation {
    /// Who knows users.
    pub authenticators: Vec<Arc<dyn Authenticate>>,
    /// Who decides what users may become.
    pub authorizers: Vec<Arc<dyn Authorize>>,
}

impl Authenticate for Impersonation {
    fn authenticate<'a>(
        &'a self,
        head: &'a http::request::Parts,
    ) -> BoxFuture<'a, Result<Option<Identity>, Status>> {
        Box::pin(async move {
            let mut found = None;
            for authenticator in &self.authenticators {
                found = authenticator.authenticate(head).await?;
                if found.is_some() {
                    break;
                }
            }
            let Some(wanted) = wanted(&head.headers)? else { return Ok(found) };
            let real = found.map_or_else(|| Arc::new(crate::Server::anonymous()), |identity| identity.user);
            for part in &wanted.parts {
                self.check(&real, part).await?;
            }
            Ok(Some(Identity { user: Arc::new(wanted.user), impersonator: Some(real) }))
        })
    }
}

impl Impersonation {
    async fn check(&self, user: &UserInfo, part: &Part) -> Result<(), Status> {
        if user.is_in(GROUP_MASTERS) {
            return Ok(());
        }
        let asked = Attributes {
            user,
            verb: "impersonate",
            group: part.group,
            version: "v1",
            resource: part.resource,
            subresource: &part.subresource,
            namespace: &part.namespace,
            name: &part.name,
            path: "",
            is_resource: true,
            label_selector: "",
            field_selector: "",
        };
        let mut reasons = Vec::new();
        for authorizer in &self.authorizers {
            let verdict = authorizer.authorize(&asked).await;
            match verdict.decision {
                Decision::Allow => return Ok(()),
                Decision::Deny => return Err(forbidden(&asked, &verdict.reason)),
                Decision::NoOpinion => reasons.push(verdict.reason),
            }
        }
        reasons.retain(|reason| !reason.is_empty());
        Err(forbidden(&asked, &reasons.join("\n")))
    }
}

/// Takes the headers out of a request that goes on to somebody else.
pub fn strip(headers: &mut HeaderMap) {
    let own: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

/// What the headers ask for, or `None` where they ask for nothing.
fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>, Status> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).filter(|text| !text.is_empty());
    let mut parts = Vec::new();
    let part = |group, resource, subresource: &str, namespace: &str, name: &str| Part {
        group,
        resource,
        subresource: subresource.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    const AUTHENTICATION: &str = "authentication.k8s.io";
    let mut user = UserInfo { name: first(HEADER_USER).unwrap_or_default(), ..UserInfo::default() };
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let account = account.filter(|(namespace, name)| !namespace.is_empty() && !name.contains(':'));
    match account {
        Some((namespace, name)) => parts.push(part("", "serviceaccounts", "", namespace, name)),
        None if user.name.is_empty() => {}
        None => parts.push(part("", "users", "", "", &user.name)),
    }
    user.groups = headers.get_all(HEADER_GROUP).iter().map(text).collect();
    parts.extend(user.groups.iter().map(|group| part("", "groups", "", "", group)));
    for (name, value) in headers {
        let Some(encoded) = name.as_str().strip_prefix(HEADER_EXTRA_PREFIX) else { continue };
        let key = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned();
        let value = text(value);
        parts.push(part(AUTHENTICATION, "userextras", &key, "", &value));
        user.extra.entry(key).or_default().push(value);
    }
    if let Some(uid) = first(HEADER_UID) {
        parts.push(part(AUTHENTICATION, "uids", "", "", &uid));
        user.uid = uid;
    }
    if parts.is_empty() {
        return Ok(None);
    }
    if user.name.is_empty() {
        let names: Vec<_> = parts.iter().map(|part| format!("{} {}", part.resource, part.name)).collect();
        let message = format!("requested [{}] without impersonating a user", names.join(", "));
        return Err(Status::bad_request(message));
    }
    if parts.len() > PARTS_LEN_MAX {
        return Err(Status::bad_request(format!("more than {PARTS_LEN_MAX} things to impersonate")));
    }
    if let (Some((namespace, name)), true) = (account, user.groups.is_empty()) {
        user.groups = UserInfo::service_account(namespace, name).groups;
        user.groups.retain(|group| group != GROUP_AUTHENTICATED);
    }
    let has = |group: &str| user.groups.iter().any(|own| own == group);
    match user.name.as_str() {
        USER_ANONYMOUS if !has(GROUP_UNAUTHENTICATED) => user.groups.push(GROUP_UNAUTHENTICATED.to_owned()),
        USER_ANONYMOUS => {}
        _ => super::add_authenticated(&mut user.groups),
    }
    Ok(Some(Wanted { user, parts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &[(&'static str, &str)], user: Option<(&str, &[&str])>, parts: &[&str]) {
        let headers =
            list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let wanted = wanted(&headers).unwrap();
        let texts = wanted.iter().flat_map(|wanted| &wanted.parts).map(|part| {
            format!("{}/{}/{} {} {}", part.group, part.resource, part.subresource, part.namespace, part.name)
        });
        let texts: Vec<_> = texts.collect();
        assert_eq!(texts, parts, "{list:?}");
        let found = wanted.map(|wanted| (wanted.user.name, wanted.user.groups));
        let expect = user.map(|(name, groups)| {
            (name.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>())
        });
        assert_eq!(found, expect, "{list:?}");
    }

    #[test]
    fn headers() {
        check(&[("accept", "*/*")], None, &[]);
        check(&[("impersonate-user", "jane")], Some(("jane", &["system:authenticated"])), &["/users/  jane"]);
        check(
            &[("impersonate-user", "jane"), ("impersonate-group", "a"), ("impersonate-group", "b")],
            Some(("jane", &["a", "b", "system:authenticated"])),
            &["/users/  jane", "/groups/  a", "/groups/  b"],
        );
        check(
            &[("impersonate-user", "system:serviceaccount:ns:bot")],
            Some((
                "system:serviceaccount:ns:bot",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            )),
            &["/serviceaccounts/ ns bot"],
        );
        check(
            &[("impersonate-user", "system:anonymous")],
            Some(("system:anonymous", &["system:unauthenticated"])),
            &["/users/  system:anonymous"],
        );
        check(
            &[
                ("impersonate-user", "jane"),
                ("impersonate-extra-acme.com%2fproject", "x"),
                ("impersonate-uid", "7"),
            ],
            Some(("jane", &["system:authenticated"])),
            &[
                "/users/  jane",
                "authentication.k8s.io/userextras/acme.com/project  x",
                "authentication.k8s.io/uids/  7",
            ],
        );
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let headers = [("impersonate-group".parse().unwrap(), "a".parse().unwrap())].into_iter().collect();
        let status = wanted(&headers).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (400, "requested [groups a] without impersonating a user")
        );
    }
}
