//! Refusals of the builders name fields that exist in the document that the user wrote.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::{AgentDelivery, AgentInjection, AgentKey};
use super::{Effective, Settings, files, network_policy, pod};
use crate::api::{FieldError, Sandbox, SandboxSession};

/// What is refused when all children are built, as the operator builds them.
fn refusal(sandbox: &Sandbox, session: Option<&SandboxSession>, settings: &Settings) -> Option<FieldError> {
    let effective = Effective::new(sandbox, session, settings);
    let agent = AgentInjection {
        delivery: AgentDelivery::ImageVolume,
        key: AgentKey::default(),
    };
    network_policy::build(sandbox, &effective, settings, &settings.lists())
        .err()
        .or_else(|| files::config_map(sandbox, &effective).err())
        .or_else(|| pod::build(sandbox, &effective, settings, &agent).err())
}

/// The value at a path as [`crate::api::FieldPath`] writes it.
fn value_at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let Some(end) = path.find(['.', '[']) else {
        return document.get(path);
    };
    let (name, rest) = path.split_at(end);
    let value = if name.is_empty() { document } else { document.get(name)? };
    if let Some(rest) = rest.strip_prefix('.') {
        return value_at(value, rest);
    }
    let (item, rest) = rest.strip_prefix('[')?.split_once(']')?;
    let item = match item.split_once('=') {
        None => value.get(item.parse::<usize>().ok()?)?,
        Some((key, wanted)) => {
            let wanted: Value = serde_json::from_str(wanted).ok()?;
            value.as_array()?.iter().find(|i| i[key] == wanted)?
        }
    };
    match rest.strip_prefix('.').unwrap_or(rest) {
        "" => Some(item),
        rest => value_at(item, rest),
    }
}

fn egress(rule: Value) -> Value {
    json!({"network": {"egress": {"mode": "Rules", "rules": [{"cidr": "8.8.8.0/24"}, rule]}}})
}

fn ingress(rule: Value) -> Value {
    json!({"network": {"ingress": {"rules": [rule]}}})
}

fn sidecar(fields: Value) -> Value {
    let mut sidecar = json!({"name": "helper", "image": "b:1"});
    sidecar
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    json!({"sidecars": [sidecar]})
}

/// Fields that admission lets through, and the one that is refused.
fn cases() -> Vec<(Value, &'static str)> {
    let long = "x".repeat(131_072);
    let large = "x".repeat(200_000);
    vec![
        (
            egress(json!({"cidr": "169.254.169.254/32"})),
            "network.egress.rules[1].cidr",
        ),
        (
            egress(json!({"cidr": "::ffff:10.0.0.0/104"})),
            "network.egress.rules[1].cidr",
        ),
        (
            egress(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]})),
            "network.egress.rules[1].except[0]",
        ),
        (
            ingress(json!({"cidr": "10.0.0.0/8", "ports": [{"port": 8971}]})),
            "network.ingress.rules[0].ports",
        ),
        (
            ingress(json!({"cidr": "nowhere", "ports": [{"port": 80}]})),
            "network.ingress.rules[0].cidr",
        ),
        (
            json!({"files": [{"path": "/a", "contentBase64": "eA"}]}),
            "files[0].contentBase64",
        ),
        (
            json!({"files": [{"path": "/a", "content": large}, {"path": "/b", "content": large}]}),
            "files",
        ),
        (
            sidecar(json!({"files": [{"path": "/a", "contentBase64": "eA"}]})),
            "sidecars[0].files[0].contentBase64",
        ),
        (
            json!({"mounts": [{"name": "data", "mountPath": "/d"}]}),
            "mounts[0].name",
        ),
        (
            sidecar(json!({"mounts": [{"name": "data", "mountPath": "/d"}]})),
            "sidecars[0].mounts[0].name",
        ),
        (
            json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 8971}]}),
            "ports[1].port",
        ),
        (
            json!({"volumes": [{"name": "v", "mountPath": "/d", "scratch": {}}], "mounts": [{"name": "v", "mountPath": "/d"}]}),
            "mounts[0].mountPath",
        ),
        (
            json!({"volumes": [{"name": "v", "mountPath": "/d", "scratch": {}}], "files": [{"path": "/d", "content": ""}]}),
            "files[0].path",
        ),
        (
            json!({"entrypoint": "Image", "files": [{"path": "a", "content": ""}]}),
            "files[0].path",
        ),
        (json!({"command": ["a"], "args": ["b", long]}), "args[1]"),
        (json!({"command": [long]}), "command[0]"),
        (
            json!({"env": [{"name": "A"}, {"name": "B", "value": long}]}),
            "env[name=\"B\"].value",
        ),
        (json!({"command": ["a"], "args": vec!["x".repeat(130_000); 17]}), "args"),
        (sidecar(json!({"args": [long]})), "sidecars[0].args[0]"),
        (
            sidecar(json!({"env": [{"name": "B", "value": long}]})),
            "sidecars[0].env[name=\"B\"].value",
        ),
    ]
}

#[test]
fn a_refused_field_is_named_in_the_document_that_it_comes_from() {
    let uid = "1234abcd-0000-0000-0000-000000000000";
    for (fields, wanted) in cases() {
        let object = |kind: &str, spec: Value| {
            json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": kind, "metadata": {"name": "a", "namespace": "team", "uid": uid},
                "spec": spec})
        };
        let own = object("Sandbox", fields.clone());
        let sandbox: Sandbox = serde_json::from_value(own.clone()).unwrap();
        let error = refusal(&sandbox, None, &Settings::default()).unwrap();
        assert_eq!(error.path.to_string(), format!("spec.{wanted}"), "{error}");
        assert!(
            value_at(&own, error.path.as_str()).is_some_and(|v| !v.is_null()),
            "{error}"
        );

        let session = object("SandboxSession", json!({"defaults": fields}));
        let member: Sandbox = serde_json::from_value(object("Sandbox", json!({"sessionName": "s"}))).unwrap();
        let defaults: SandboxSession = serde_json::from_value(session.clone()).unwrap();
        let error = refusal(&member, Some(&defaults), &Settings::default()).unwrap();
        assert_eq!(
            error.path.to_string(),
            format!("spec.defaults.{wanted} of SandboxSession s"),
            "{error}"
        );
        assert!(
            value_at(&session, error.path.as_str()).is_some_and(|v| !v.is_null()),
            "{error}"
        );
    }
}

#[test]
fn a_rule_for_the_internet_without_any_public_address_is_named() {
    let settings: Settings = serde_json::from_value(json!({"network": {"never": ["0.0.0.0/0", "::/0"]}})).unwrap();
    let object = json!({"apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "a"},
        "spec": {"network": {"egress": {"mode": "Rules", "rules": [{"internet": true}]}}}});
    let error = refusal(&serde_json::from_value(object).unwrap(), None, &settings).unwrap();
    assert_eq!(
        error.path.to_string(),
        "spec.network.egress.rules[0].internet",
        "{error}"
    );
}
