use super::*;
use crate::api::{ANNOTATION_REQUEST_METADATA, SandboxSpec, SandboxStatus};
use serde_json::json;

fn runners() -> Runners {
    let text = "runners: [{id: cpu, nodeLabels: {pool: cpu}}, {id: gpu, nodeLabels: {pool: gpu, zone: a}}]";
    let config: Config = serde_saphyr::from_str(text).unwrap();
    Runners::new(&config)
}

fn node(name: &str, labels: serde_json::Value) -> Readable<PartialObjectMeta<Node>> {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    serde_json::from_value(object).unwrap()
}

/// A sandbox on a node, whose creator chose these runners.
fn sandbox(node: Option<&str>, runner_ids: &[&str]) -> Sandbox {
    let mut sandbox = Sandbox::new("a", SandboxSpec::default());
    let facts = json!({"runnerIds": runner_ids}).to_string();
    sandbox
        .annotations_mut()
        .insert(ANNOTATION_REQUEST_METADATA.into(), facts);
    sandbox.status = Some(SandboxStatus {
        node_name: node.map(Into::into),
        ..SandboxStatus::default()
    });
    sandbox
}

#[test]
fn without_configured_runners_every_sandbox_is_on_the_cluster_runner() {
    let runners = Runners::new(&Config::default());
    assert!(runners.is_ready());
    assert_eq!(runners.of(&sandbox(Some("anywhere"), &[])).unwrap().id, "default");
}

#[test]
fn the_node_determines_the_runner_and_before_that_the_only_requested_one() {
    let (runners, mut listed) = (runners(), HashMap::new());
    let id = |sandbox: &Sandbox| runners.of(sandbox).map_or("", |r| r.id.as_str()).to_owned();
    runners.apply(&mut listed, Event::Init);
    runners.apply(&mut listed, Event::InitApply(node("n1", json!({"pool": "cpu"}))));
    assert!(!runners.is_ready());
    runners.apply(&mut listed, Event::InitDone);
    runners.apply(
        &mut listed,
        Event::Apply(node("n2", json!({"pool": "gpu", "zone": "a"}))),
    );
    runners.apply(&mut listed, Event::Apply(node("n3", json!({"pool": "gpu"}))));
    assert!(runners.is_ready());
    assert_eq!(
        [
            id(&sandbox(Some("n1"), &[])),
            id(&sandbox(Some("n2"), &[])),
            id(&sandbox(Some("n3"), &[]))
        ],
        ["cpu", "gpu", ""]
    );
    assert_eq!(
        [
            id(&sandbox(None, &["gpu"])),
            id(&sandbox(None, &["gpu", "gone"])),
            id(&sandbox(None, &["gpu", "cpu"]))
        ],
        ["gpu", "gpu", ""]
    );
    // A node that was deleted, and one whose labels changed.
    runners.apply(&mut listed, Event::Delete(node("n1", json!({}))));
    runners.apply(&mut listed, Event::Apply(node("n2", json!({}))));
    assert_eq!(
        [id(&sandbox(Some("n1"), &[])), id(&sandbox(Some("n2"), &["cpu"]))],
        ["", "cpu"]
    );
}
