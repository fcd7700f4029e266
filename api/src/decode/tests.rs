use super::*;
use serde_json::json;

fn deployment() -> Target<'static> {
    Target::new("apps/v1", "Deployment")
}

fn decode(target: Target<'_>, body: &Value) -> Result<Decoded, Status> {
    object(body.to_string().as_bytes(), Format::Json, target)
}

#[test]
fn unknown_and_duplicate_fields_are_named_in_order() {
    let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","unknownMeta":"foo"},
        "spec":{"unknownField":"foo","replicas":2,"replicas":3,"paused":true,
        "template":{"spec":{"containers":[{"name":"a","image":"b","foo":{"bar":1},"env":[{"name":"x","nope":1}]}]}}}}"#;
    let decoded = object(body, Format::Json, deployment()).unwrap();
    assert_eq!(
        decoded.strict_errors,
        [
            r#"unknown field "metadata.unknownMeta""#,
            r#"unknown field "spec.unknownField""#,
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.template.spec.containers[0].foo""#,
            r#"unknown field "spec.template.spec.containers[0].env[0].nope""#
        ]
    );
    assert_eq!(decoded.value["spec"]["replicas"], 3);
    assert_eq!(decoded.value["spec"].get("unknownField"), None);
    let refused = decoded.clone().check(FieldValidation::Strict).unwrap_err();
    assert!(refused.message.starts_with(
        r#"strict decoding error: unknown field "metadata.unknownMeta", unknown field "spec.unknownField", duplicate field "spec.replicas""#
    ));
    assert_eq!(decoded.clone().check(FieldValidation::Ignore).unwrap().1, Vec::<String>::new());
    assert_eq!(decoded.check(FieldValidation::Warn).unwrap().1.len(), 5);
}

#[test]
fn wrong_types_are_refused_with_the_words_of_go() {
    let check = |body: Value, expect: &str| {
        let error = decode(deployment(), &body).unwrap_err();
        assert_eq!(
            error.message,
            format!("Deployment in version \"v1\" cannot be handled as a Deployment: {expect}")
        );
        assert_eq!(error.code, 400);
    };
    check(
        json!({"spec": {"replicas": "3"}}),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        json!({"spec": {"replicas": 3.5}}),
        "json: cannot unmarshal number 3.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
    );
    check(
        json!({"spec": {"template": {"spec": {"containers": {"name": "a"}}}}}),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
    );
    check(
        json!({"spec": {"template": {"spec": {"containers": ["a"]}}}}),
        "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
    );
    check(
        json!({"metadata": {"labels": {"a": 5}}}),
        "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
    );
    check(
        json!({"spec": 5}),
        "json: cannot unmarshal number into Go struct field Deployment.spec of type v1.DeploymentSpec",
    );
    check(
        json!({"spec": {"template": {"spec": {"containers": [{"livenessProbe": {"httpGet": 1}}]}}}}),
        "json: cannot unmarshal number into Go struct field Probe.spec.template.spec.containers.livenessProbe.ProbeHandler.httpGet of type v1.HTTPGetAction",
    );
    check(
        json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}}}),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
}

#[test]
fn bodies_of_another_sort_are_refused() {
    let check = |body: &str, expect: &str| {
        assert_eq!(object(body.as_bytes(), Format::Json, deployment()).unwrap_err().message, expect);
    };
    check(
        "{",
        "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: unexpected end of JSON input (\"{\")",
    );
    check(
        r#"{"apiVersion":"v1","kind":"Pod"}"#,
        "Pod in version \"v1\" cannot be handled as a Deployment: unknown conversion",
    );
    check(
        r#"{"apiVersion":"apps/v2","kind":"Deployment"}"#,
        "the API version in the data (apps/v2) does not match the expected API version (apps/v1)",
    );
    check(
        r#"{"apiVersion":"apps/v1","kind":"Foo"}"#,
        "Foo in version \"v1\" cannot be handled as a Deployment: no kind \"Foo\" is registered for version \"apps/v1\"",
    );
    check(
        r#"{"kind":5}"#,
        "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string (\"{\\\"kind\\\":5}\")",
    );
}

#[test]
fn a_body_of_nothing_is_an_empty_object() {
    let check = |format: Format, body: &str, target: Target<'_>| {
        let decoded = object(body.as_bytes(), format, target).unwrap();
        let expect = json!({"apiVersion": target.api_version, "kind": target.kind});
        assert_eq!(
            (decoded.value, decoded.strict_errors),
            (expect, Vec::<String>::new()),
            "{format:?} {body:?}"
        );
    };
    for target in [deployment(), Target::new("example.com/v1", "Foo")] {
        check(Format::Json, "null", target);
        check(Format::Json, " null\n", target);
        check(Format::Json, "{}", target);
        check(Format::Yaml, "", target);
        check(Format::Yaml, "# nothing\n", target);
        check(Format::Yaml, "~", target);
        check(Format::Yaml, "null", target);
    }
}

#[test]
fn a_body_that_is_no_object_has_no_kind() {
    let check = |format: Format, body: &str, what: &str, shown: &str| {
        let error = object(body.as_bytes(), format, deployment()).unwrap_err();
        let go = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        let expect = match what {
            "end" => "unexpected end of JSON input".to_owned(),
            what => format!("json: cannot unmarshal {what} into Go value of type {go}"),
        };
        let expect = format!(
            "the object provided is unrecognized (must be of type Deployment): couldn't get version/kind; json parse error: {expect} ({shown})"
        );
        assert_eq!((error.code, error.message), (400, expect));
    };
    check(Format::Json, "", "end", "empty request body");
    check(Format::Json, "5", "number", r#""5""#);
    check(Format::Json, "true", "bool", r#""true""#);
    check(Format::Json, r#"["v1","Pod"]"#, "array", r#""[\"v1\",\"Pod\"]""#);
    check(Format::Yaml, "5", "number", r#""5""#);
    check(Format::Yaml, "- v1\n- Pod\n", "array", r#""- v1\n- Pod\n""#);
    check(Format::Yaml, "just words", "string", r#""just words""#);
}

#[test]
fn numbers_keep_all_their_digits() {
    // Each is one off from what a parser that rounds twice reads.
    for text in [
        "0.1",
        "51.24817837550540",
        "5.9164046613752675e-19",
        "9007199254740993.0",
        "4.35e22",
        "2.2250738585072014e-308",
    ] {
        let number: f64 = text.parse().unwrap();
        let body = format!(r#"{{"spec":{{"x":{text}}}}}"#);
        let read = object(body.as_bytes(), Format::Json, Target::new("example.com/v1", "Foo")).unwrap();
        assert_eq!(read.value["spec"]["x"].as_f64(), Some(number), "{text}");
        let stored: Value = serde_json::from_str(&read.value.to_string()).unwrap();
        assert_eq!(stored, read.value, "{text}");
    }
    // Reading is the inverse of writing for numbers of every size.
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..10_000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = f64::from_bits(bits);
        if number.is_finite() {
            let text = serde_json::to_string(&number).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), number.to_bits(), "{text}");
        }
    }
}

#[test]
fn values_get_the_form_that_go_writes() {
    let pod = Target::new("v1", "Pod");
    let body = json!({"metadata": {"name": "a", "creationTimestamp": null, "labels": {}, "generation": 0,
        "deletionTimestamp": "2026-11-23T10:00:00.5+01:00"},
        "spec": {"containers": [{"name": "", "args": [], "command": ["a", null], "resources": {"limits": {"cpu": "1000m", "memory": 0.5}},
            "ports": [{"containerPort": 80, "hostPort": 0}],
            "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0}}],
          "terminationGracePeriodSeconds": 0, "hostNetwork": false, "securityContext": {}}});
    let expect = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "deletionTimestamp": "2026-11-23T09:00:00Z"},
        "spec": {"containers": [{"name": "", "command": ["a", ""], "resources": {"limits": {"cpu": "1", "memory": "500m"}},
            "ports": [{"containerPort": 80}],
            "readinessProbe": {"httpGet": {"port": 80}}}],
          "terminationGracePeriodSeconds": 0, "securityContext": {}}});
    let decoded = decode(pod, &body).unwrap();
    assert_eq!((decoded.value, decoded.strict_errors), (expect, Vec::<String>::new()));
    let secret =
        decode(Target::new("v1", "Secret"), &json!({"data": {"a": "YR==", "b": "Y\nQ==", "c": null}}))
            .unwrap();
    assert_eq!(secret.value["data"], json!({"a": "YQ==", "b": "YQ==", "c": null}));
}

#[test]
fn a_custom_resource_keeps_everything_but_unknown_metadata() {
    let target = Target::new("example.com/v1", "Foo");
    let body = br#"{"metadata":{"name":"a","x":1},"spec":{"a":1,"a":2,"b":null,"f":1.0,"big":12345678901234567890}}"#;
    let decoded = object(body, Format::Json, target).unwrap();
    assert_eq!(decoded.strict_errors, [r#"unknown field "metadata.x""#, r#"duplicate field "spec.a""#]);
    assert_eq!(
        decoded.value["spec"],
        json!({"a": 2, "b": null, "f": 1, "big": 12_345_678_901_234_567_000.0})
    );
}

#[test]
fn a_schema_of_a_custom_resource_is_read_in_all_its_forms() {
    let target = Target::new("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let schema = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}},
        "b": {"additionalProperties": true, "default": {"x": [1, null]}}, "c": {"additionalProperties": {"type": "integer"}},
        "d": {"default": 5, "x-kubernetes-int-or-string": true, "maximum": 5.0}}});
    let body = json!({"spec": {"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let decoded = decode(target, &body).unwrap();
    assert_eq!(decoded.strict_errors, Vec::<String>::new());
    let mut expect = schema;
    expect["properties"]["d"]["maximum"] = json!(5);
    assert_eq!(decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], expect);
}

#[test]
fn yaml_is_read_as_go_yaml_does() {
    let text = "a: yes\nb: 0755\nc: 1e3\nd: 1.0\ne: 0x10\nf: '5'\ng: 2001-01-01\nh: ~\nn: 1\n1: x\ni: &x {p: 1}\nj: *x\nk:\n  <<: *x\n  q: 2\nl: !!str 5\nm: 08\no: 1_000\np: |\n  a\n  b\n";
    let (value, duplicates) = yaml(text.as_bytes()).unwrap();
    let expect = json!({"a": true, "b": 493, "c": 1000, "d": 1, "e": 16, "f": "5", "g": "2001-01-01", "h": null, "false": 1, "1": "x",
        "i": {"p": 1}, "j": {"p": 1}, "k": {"p": 1, "q": 2}, "l": "5", "m": 8, "o": 1000, "p": "a\nb\n"});
    assert_eq!((value, duplicates), (expect, None));
}

#[test]
fn yaml_duplicates_are_named_with_their_line() {
    let text = "apiVersion: v1\nspec:\n  foo: 1\n  foo: 2\nspec: {}\n";
    let (_, duplicates) = yaml(text.as_bytes()).unwrap();
    assert_eq!(
        duplicates.as_deref(),
        Some(
            "yaml: unmarshal errors:\n  line 4: key \"foo\" already set in map\n  line 5: key \"spec\" already set in map"
        )
    );
}

#[test]
fn yaml_cannot_grow_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    assert!(yaml(text.as_bytes()).unwrap_err().contains("excessive aliasing"));
    assert!(yaml("[".repeat(200).as_bytes()).is_err());
}

#[test]
fn nesting_is_bounded() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert_eq!(untyped(deep.as_bytes()).unwrap_err(), "exceeded max depth");
    let fits = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    assert!(untyped(fits.as_bytes()).is_ok());
}
