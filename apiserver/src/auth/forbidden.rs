//! The words of a refused request. Upstream: `apiserver/pkg/endpoints/handlers/responsewriters` (`forbiddenMessage`).

use crate::hooks::Attributes;
use api::Status;
use api::status::ResourceId;

/// 403 for a request that nobody allowed. `reason` is what the authorizers said; it may be empty.
pub fn forbidden(asked: &Attributes<'_>, reason: &str) -> Status {
    let mut message = message(asked);
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    if !asked.is_resource {
        return Status::forbidden(ResourceId { group: "", plural: "" }, asked.name, &message);
    }
    Status::forbidden(ResourceId { group: asked.group, plural: asked.resource }, asked.name, &message)
}

fn message(asked: &Attributes<'_>) -> String {
    let user = &asked.user.name;
    if !asked.is_resource {
        return format!("User \"{user}\" cannot {} path \"{}\"", asked.verb, asked.path);
    }
    let resource = match asked.subresource {
        "" => asked.resource.to_owned(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let scope = match asked.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    format!(
        "User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\" {scope}",
        asked.verb, asked.group
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::asked;

    fn check(request: &str, expect: &str) {
        let user = api::UserInfo { name: "x".to_owned(), ..api::UserInfo::default() };
        assert_eq!(forbidden(&asked(&user, request), "").message, expect);
    }

    #[test]
    fn upstream_s_words() {
        check(
            "list  pods default -",
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
        );
        check(
            "get apps deployments/scale a b",
            r#"deployments.apps "b" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" in the namespace "a""#,
        );
        check(
            "get  nodes - n",
            r#"nodes "n" is forbidden: User "x" cannot get resource "nodes" in API group "" at the cluster scope"#,
        );
        check("get /metrics", r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
