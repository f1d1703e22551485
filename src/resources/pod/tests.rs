//! The pod of a sandbox, in full, in `snapshots`. `INSTA_UPDATE=always cargo test --lib resources::pod` writes them.
#![allow(clippy::unwrap_used)]

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::build;
use crate::api::{ANNOTATION_AGENT_KEY, Sandbox, Sidecar, Workload};
use crate::resources::{AgentDelivery, AgentInjection, AgentKey};
use crate::resources::{Effective, Settings, names};

fn pod(spec: &Value, agent: AgentDelivery) -> Pod {
    let object = json!({
        "apiVersion": "sandbox-operator.dev/v1alpha1", "kind": "Sandbox",
        "metadata": {"name": "train", "namespace": "team", "uid": "1234abcd-0000-0000-0000-000000000000"},
        "spec": spec,
    });
    let sandbox: Sandbox = serde_json::from_value(object).unwrap();
    let settings = Settings::default();
    let agent = AgentInjection {
        delivery: agent,
        key: AgentKey {
            id: "k001790000000".into(),
            public_key: "cHVibGljIGtleQ==".into(),
        },
    };
    let mut pod = build(&sandbox, &Effective::new(&sandbox, None, &settings), &settings, &agent).unwrap();
    names::set_policy_owner(&mut pod.metadata, "5678ef00-0000-0000-0000-000000000000");
    pod
}

/// Every field that shapes the pod.
fn full() -> Value {
    serde_saphyr::from_str(include_str!("full.yaml")).unwrap()
}

#[test]
fn the_full_pod_sets_every_field() {
    let missing = |schema: schemars::Schema, full: &Value| -> Vec<String> {
        let fields = schema.get("properties").unwrap().as_object().unwrap().keys();
        fields.filter(|field| full[*field].is_null()).cloned().collect()
    };
    let (full, none): (Value, Vec<String>) = (full(), vec![]);
    assert_eq!(missing(schemars::schema_for!(Workload), &full), none);
    assert_eq!(missing(schemars::schema_for!(Sidecar), &full["sidecars"][0]), none);
}

#[test]
fn the_default_pod() {
    insta::assert_yaml_snapshot!("default", pod(&json!({}), AgentDelivery::ImageVolume));
}

#[test]
fn the_full_pod() {
    insta::assert_yaml_snapshot!("full", pod(&full(), AgentDelivery::ImageVolume));
}

#[test]
fn an_init_container_copies_the_agent_if_nodes_cannot_mount_images() {
    let (mounted, copied) = (
        pod(&json!({}), AgentDelivery::ImageVolume),
        pod(&json!({}), AgentDelivery::InitContainer),
    );
    let (mounted, copied) = (mounted.spec.unwrap(), copied.spec.unwrap());
    insta::assert_yaml_snapshot!(
        "agent-copied",
        json!({"initContainers": copied.init_containers, "volume": copied.volumes.unwrap()[0]})
    );
    assert_eq!(
        (mounted.init_containers, mounted.containers),
        (None, copied.containers),
        "the rest is the same"
    );
}

#[test]
fn the_images_own_entrypoint_runs_without_the_agent_but_with_its_binary_mounted() {
    let pod = pod(
        &json!({"entrypoint": "Image", "args": ["serve"]}),
        AgentDelivery::ImageVolume,
    );
    let spec = pod.spec.unwrap();
    let (main, agent) = (&spec.containers[0], "sandbox-operator-agent");
    assert_eq!(
        (&main.command, main.args.as_deref()),
        (&None, Some(&["serve".to_owned()][..]))
    );
    assert!(
        main.volume_mounts
            .iter()
            .flatten()
            .any(|m| m.name == agent && m.read_only == Some(true))
    );
    assert!(
        !pod.metadata.annotations.unwrap().contains_key(ANNOTATION_AGENT_KEY),
        "no agent listens"
    );
}

#[test]
fn a_users_mount_replaces_shared_memory_in_that_container_only() {
    let at = |path: &str| json!({"name": "data", "mountPath": path});
    let sidecar = json!({"name": "helper", "image": "b:1", "mounts": [at("/dev/shm")]});
    let spec = json!({"volumes": [{"name": "data", "mountPath": "/data"}], "sidecars": [sidecar]});
    let spec = pod(&spec, AgentDelivery::ImageVolume).spec.unwrap();
    let shared = |c: &k8s_openapi::api::core::v1::Container| {
        let mounts = c.volume_mounts.iter().flatten().filter(|m| m.mount_path == "/dev/shm");
        mounts.map(|m| m.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(shared(&spec.containers[0]), ["sandbox-operator-shm"]);
    assert_eq!(shared(&spec.init_containers.unwrap()[0]), ["data"]);
}
