use super::*;
use crate::path::{self, Query};

/// `WHO VERB PATH`, from elsewhere, under a policy: the level.
fn level(policy: &Policy, request: &str, is_own: bool) -> AuditLevel {
    let mut words = request.split(' ');
    let (user, method, url) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let query = Query::parse(Some(query));
    let target = path::parse(&method.parse().unwrap(), path, &query).unwrap();
    let (name, group) = user.split_once('@').unwrap_or((user, ""));
    let user = UserInfo { name: name.into(), groups: vec![group.into()], ..UserInfo::default() };
    let attributes = crate::pipeline::attributes(&target, &query, &user);
    let source = (!is_own).then(|| ([10, 0, 0, 1], 1).into());
    policy.decide(&Question::of(&attributes, source)).level
}

#[test]
fn the_standard_policy_records_what_people_do() {
    let policy = Policy::standard();
    for (request, expect) in [
        ("ann POST /api/v1/namespaces/a/pods", AuditLevel::Metadata),
        ("ann GET /api/v1/namespaces/a/secrets/s", AuditLevel::Metadata),
        ("ann GET /api/v1/pods", AuditLevel::Metadata),
        ("ann GET /api/v1/pods?watch=1", AuditLevel::None),
        ("ann GET /api/v1/namespaces/a/pods/p/exec", AuditLevel::Metadata),
        ("ann GET /readyz", AuditLevel::None),
        ("ann GET /apis/apps/v1", AuditLevel::None),
        ("ann GET /openapi/v3", AuditLevel::None),
        ("ann GET /metrics", AuditLevel::Metadata),
        ("ann POST /api/v1/namespaces/a/events", AuditLevel::Metadata),
        ("n@system:nodes POST /api/v1/namespaces/a/events", AuditLevel::None),
        ("n@system:nodes PATCH /api/v1/nodes/n/status", AuditLevel::None),
        ("n@system:nodes PATCH /api/v1/nodes/n", AuditLevel::Metadata),
        ("n@system:nodes PUT /apis/coordination.k8s.io/v1/namespaces/x/leases/n", AuditLevel::None),
        ("n@system:nodes GET /api/v1/namespaces/a/secrets/s", AuditLevel::None),
        ("n@system:nodes DELETE /api/v1/namespaces/a/pods/p", AuditLevel::Metadata),
    ] {
        assert_eq!(level(&policy, request, false), expect, "{request}");
        assert_eq!(level(&policy, request, true), AuditLevel::None, "{request} in process");
    }
    let put = "ann POST /api/v1/namespaces/a/pods";
    let own =
        Policy::parse("{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Request}]}").unwrap();
    assert_eq!(level(&own, put, true), AuditLevel::Request, "a given policy decides about all");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = Policy::parse(
        "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: [bob], verbs: [get]}
- {level: RequestResponse, resources: [{group: '', resources: [secrets], resourceNames: [top]}]}
- {level: Request, resources: [{group: '', resources: [pods/log, '*/status']}, {group: apps, resources: ['*']}], omitStages: [ResponseStarted]}
- {level: Metadata, resources: [{group: '', resources: [pods]}], namespaces: [a, ''], omitManagedFields: true}
- {level: Metadata, nonResourceURLs: [/metrics, /logs*]}
- {level: Request, userGroups: [devs], resources: [{group: batch}]}
",
    )
    .unwrap();
    for (request, expect) in [
        ("bob GET /api/v1/namespaces/a/secrets/top", AuditLevel::None),
        ("ann GET /api/v1/namespaces/a/secrets/top", AuditLevel::RequestResponse),
        ("ann GET /api/v1/namespaces/a/secrets/low", AuditLevel::None),
        ("ann GET /api/v1/namespaces/b/pods/p/log", AuditLevel::Request),
        ("ann PUT /api/v1/namespaces/b/pods/p/status", AuditLevel::Request),
        ("ann PUT /apis/apps/v1/namespaces/b/deployments/p/scale", AuditLevel::Request),
        ("ann GET /api/v1/namespaces/a/pods/p", AuditLevel::Metadata),
        ("ann GET /api/v1/namespaces/a/pods/p/eviction", AuditLevel::None),
        ("ann GET /api/v1/namespaces/b/pods/p", AuditLevel::None),
        ("ann GET /api/v1/pods", AuditLevel::Metadata),
        ("ann GET /metrics", AuditLevel::Metadata),
        ("ann GET /metrics/x", AuditLevel::None),
        ("ann GET /logs/x", AuditLevel::Metadata),
        ("ann@devs GET /apis/batch/v1/jobs", AuditLevel::Request),
        ("ann GET /apis/batch/v1/jobs", AuditLevel::None),
    ] {
        assert_eq!(level(&policy, request, false), expect, "{request}");
    }
    let user = UserInfo { name: "ann".into(), ..UserInfo::default() };
    let question = |resource, subresource| Question {
        user: &user,
        verb: "get",
        group: "",
        resource,
        subresource,
        namespace: "a",
        name: "p",
        path: "",
        is_resource: true,
        is_own: false,
    };
    let log = policy.decide(&question("pods", "log"));
    assert!(log.omits(AuditStage::RequestReceived) && log.omits(AuditStage::ResponseStarted));
    assert!(!log.omits(AuditStage::ResponseComplete) && !log.omit_managed_fields);
    assert!(policy.decide(&question("pods", "")).omit_managed_fields);
}

#[test]
fn policies_that_mean_nothing_are_refused() {
    let refused = |text: &str| Policy::parse(text).unwrap_err().to_string();
    let with = |rule: &str| format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rule}]}}");
    for (text, expect) in [
        ("{".to_owned(), ""),
        ("{apiVersion: v1, kind: Policy, rules: [{level: None}]}".to_owned(), "v1/Policy, not a Policy"),
        (with(""), "no rules"),
        (with("{level: All}"), "All"),
        (with("{level: None, user: [x]}"), "user"),
        (
            with("{level: None, nonResourceURLs: [/x], namespaces: [a]}"),
            "rules[0]: rules cannot apply to both",
        ),
        (with("{level: None, nonResourceURLs: [x]}"), "must begin with a '/'"),
        (with("{level: None, nonResourceURLs: ['/x*y']}"), "must be the final character"),
        (with("{level: None, resources: [{group: apps/v1}]}"), "without its version"),
        (with("{level: None, resources: [{resourceNames: [x]}]}"), "at least one resource"),
        (" ".repeat(POLICY_BYTES_MAX + 1), "allowed are"),
    ] {
        assert!(refused(&text).contains(expect), "{}", refused(&text));
    }
}
