//! Requests that violate a constraint of the cluster's administrator are refused.

use serde_json::json;
use tonic::Code;

use super::{config, draft_on, minimum, with};
use crate::gateway::convert::overrides::into_spec;
use crate::proto::sandbox as pb;
use crate::resources::settings::Constraints;

fn refusal(constraints: serde_json::Value, spec: pb::SandboxSpec) -> String {
    let mut config = config();
    config.constraints = serde_json::from_value(constraints).unwrap();
    match draft_on(&config, None, spec) {
        Ok(_) => String::new(),
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
            status.message().into()
        }
    }
}

#[test]
pub(super) fn a_violation_names_the_field_of_the_request() {
    let runtime = |name: &str| with(|s| s.runtime_class = name.into());
    let gvisor = || json!({"runtimeClassNames": ["gvisor"]});
    assert_eq!(refusal(gvisor(), runtime("gvisor")), "");
    for (constraints, spec, expected) in [
        (
            gvisor(),
            runtime("kata"),
            "sandbox.spec.runtime_class: must be one of gvisor, and \"kata\" is not; \
             the cluster's administrator set it in sandboxes.constraints.runtimeClassNames",
        ),
        (
            gvisor(),
            runtime("<node-default>"),
            "sandbox.spec.runtime_class: must be one of gvisor; ",
        ),
        (
            gvisor(),
            minimum(),
            "sandbox.spec.runtime_class: must be one of gvisor; ",
        ),
        (
            json!({"images": ["registry.example/"]}),
            minimum(),
            "sandbox.spec.containers: its containerImage must be an image of registry.example/, and \"python:3.11\" is not",
        ),
        (
            json!({"maxLifetimeSeconds": 60}),
            with(|s| s.max_lifetime_seconds = 61),
            "sandbox.spec.max_lifetime_seconds: must be at most 60, and \"61\" is not",
        ),
        (
            json!({"egress": {"modes": ["None"]}}),
            minimum(),
            "sandbox.spec.network: its network.egress.mode must be one of None, and \"Internet\" is not",
        ),
        (
            json!({}),
            with(|s| {
                drop(
                    s.annotations
                        .insert("vault.hashicorp.com/agent-inject".into(), "true".into()),
                )
            }),
            "sandbox.spec.annotations[\"vault.hashicorp.com/agent-inject\"]: must be a key that matches one of *",
        ),
        (
            json!({"nodeSelector": {"pool": "sandboxes"}}),
            minimum(),
            "sandbox.spec: its nodeSelector[\"pool\"] must be \"sandboxes\"",
        ),
    ] {
        let message = refusal(constraints, spec);
        assert!(message.starts_with(expected), "{message}");
    }
    let mut config = config();
    config.constraints = serde_json::from_value(json!({"tolerations": []})).unwrap();
    let template = super::templates::template();
    let overrides = into_spec(pb::PartialSandboxSpec::default());
    let status = draft_on(&config, Some(&template), overrides).err().unwrap();
    let expected = "template_id: its tolerations[0] must be a toleration that the list has; ";
    assert!(status.message().starts_with(expected), "{}", status.message());
}

#[test]
fn the_operators_defaults_count() {
    let mut config = config();
    config.constraints = serde_json::from_value(json!({"runtimeClassNames": ["gvisor"]})).unwrap();
    config.defaults.runtime_class_name = "gvisor".into();
    assert!(draft_on(&config, None, minimum()).is_ok());
    config.constraints = Constraints::default();
    assert!(draft_on(&config, None, minimum()).is_ok());
}
