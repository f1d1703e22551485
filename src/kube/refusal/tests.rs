use super::*;
use serde_json::{Value, json};

fn status(code: u16, message: &str, details: Value) -> Status {
    serde_json::from_value(json!({"code": code, "message": message, "details": details})).unwrap()
}

fn pods() -> Value {
    json!({"name": "a", "kind": "pods"})
}

#[test]
fn each_refusal_has_its_meaning() {
    let sandboxes = json!({"name": "a", "group": "sandbox-operator.dev", "kind": "sandboxes"});
    let terminating = json!({"name": "a", "kind": "pods", "causes": [{"reason": "NamespaceTerminating", "message": "namespace n is being terminated", "field": "metadata.namespace"}]});
    for (code, message, details, meaning) in [
        (
            403,
            "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
            pods(),
            Refusal::QuotaExceeded,
        ),
        (
            403,
            "pods \"a\" is forbidden: status unknown for quota: q, resources: pods",
            pods(),
            Refusal::QuotaExceeded,
        ),
        (
            403,
            "sandboxes.sandbox-operator.dev \"a\" is forbidden: exceeded quota: q, requested: count/sandboxes=1",
            sandboxes,
            Refusal::QuotaExceeded,
        ),
        (
            403,
            "pods \"a\" is forbidden: unable to create new content in namespace n because it is being terminated",
            terminating,
            Refusal::NamespaceTerminating,
        ),
        (
            403,
            "pods \"a\" is forbidden: error looking up service account n/x: serviceaccount \"x\" not found",
            pods(),
            Refusal::NoServiceAccount,
        ),
        (
            403,
            "pods is forbidden: User \"system:serviceaccount:o:o\" cannot create resource \"pods\" in API group \"\" in the namespace \"n\"",
            json!({"kind": "pods"}),
            Refusal::Unauthorized,
        ),
        (
            403,
            "pods \"a\" is forbidden: pod rejected: RuntimeClass \"kata\" not found",
            pods(),
            Refusal::NoRuntimeClass("\"kata\" not found"),
        ),
        (
            403,
            "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\": privileged",
            pods(),
            Refusal::Denied,
        ),
        (
            422,
            "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            pods(),
            Refusal::Denied,
        ),
        (
            400,
            "admission webhook \"w.example.com\" denied the request without explanation",
            Value::Null,
            Refusal::Denied,
        ),
        (
            422,
            "Pod \"a\" is invalid: spec.hostname: Invalid value: \"A\"",
            json!({"name": "a", "kind": "Pod"}),
            Refusal::Invalid,
        ),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Pod",
            Value::Null,
            Refusal::Invalid,
        ),
        (
            500,
            "Internal error occurred: failed calling webhook \"w\"",
            Value::Null,
            Refusal::Failed,
        ),
        (
            404,
            "namespaces \"n\" not found",
            json!({"name": "n", "kind": "namespaces"}),
            Refusal::Other,
        ),
    ] {
        assert_eq!(Refusal::from(&status(code, message, details)), meaning, "{message}");
    }
}

/// A user controls names, labels and the texts of other policies.
#[test]
fn a_text_that_only_contains_that_of_another_refusal_is_not_mistaken_for_it() {
    let quota = "pods \"a\" is forbidden: exceeded quota: q";
    for (code, message, meaning) in [
        (403, format!("pods \"a\" is forbidden: violates PodSecurity: label {quota}"), Refusal::Denied),
        (403, "pods \"a\" is forbidden: violates PodSecurity: exceeded quota: q".into(), Refusal::Denied),
        (403, format!("admission webhook \"w\" denied the request: {quota}"), Refusal::Denied),
        (403, "admission webhook \"w\" denied the request: User \"x\" may not".into(), Refusal::Denied),
        (403, "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: error looking up service account".into(), Refusal::Denied),
        (403, "pods \"a\" is forbidden: x: because it is being terminated".into(), Refusal::Denied),
        (403, "pods \"a\" is forbidden: x: pod rejected: RuntimeClass \"kata\" not found".into(), Refusal::Denied),
        (403, "pods \"b\" is forbidden: exceeded quota: q".into(), Refusal::Denied),
        (422, format!("Pod \"a\" is invalid: metadata.labels: Invalid value: \"{quota}\""), Refusal::Invalid),
        (422, "Pod \"a\" is invalid: metadata.labels: Invalid value: \"denied\"".into(), Refusal::Invalid),
        (422, "Pod \"a\" is invalid: metadata.labels: Invalid value: \"admission webhook \\\"w\\\" denied the request\"".into(), Refusal::Invalid),
    ] {
        assert_eq!(Refusal::from(&status(code, &message, pods())), meaning, "{message}");
    }
    let named = json!({"name": "exceeded quota: q", "kind": "pods"});
    let message = "pods \"exceeded quota: q\" is forbidden: violates PodSecurity";
    assert_eq!(Refusal::from(&status(403, message, named)), Refusal::Denied);
}
