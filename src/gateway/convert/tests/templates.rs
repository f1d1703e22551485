//! An override that is set replaces the template's field.

use super::{config, draft_from};
use crate::api::{Container, Workload};
use crate::gateway::convert::overrides::into_spec;
use crate::proto::sandbox as pb;

pub(super) fn template() -> Workload {
    serde_json::from_value(serde_json::json!({
        "containerImage": "redis:7", "entrypoint": "Image", "args": ["--port", "1"], "runAsUser": 999, "securityProfile": "Restricted",
        "env": [{"name": "A", "value": "1"}],
        "sidecars": [{"name": "log", "image": "busybox", "mounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "mountPath": "/data", "scratch": {}}],
        "ports": [{"name": "redis", "port": 6379}],
        "network": {"egress": {"mode": "None"}, "ingress": {"rules": [{"podSelector": {}, "ports": [{"port": 6379}]}]}},
        "tags": ["from-template"], "podAnnotations": {"a": "b"}, "maxLifetimeSeconds": 77, "tolerations": [{"operator": "Exists"}],
        "runtimeClassName": "gvisor",
    }))
    .unwrap()
}

fn with(change: impl FnOnce(&mut pb::PartialSandboxSpec)) -> Workload {
    let mut partial = pb::PartialSandboxSpec::default();
    change(&mut partial);
    draft_from(Some(&template()), into_spec(partial)).unwrap().workload
}

#[test]
fn without_overrides_the_sandbox_is_the_template() {
    assert_eq!(with(|_| {}), template());
}

#[test]
fn a_container_replaces_all_containers_and_nothing_else() {
    let w = with(|p| {
        p.containers = vec![pb::PartialContainer {
            name: "main".into(),
            image: "python:3.12".into(),
            command: "sh".into(),
            ..pb::PartialContainer::default()
        }];
    });
    let mut expected = Workload {
        container_image: Some("python:3.12".into()),
        entrypoint: None,
        container: Container {
            command: Some(vec!["sh".into()]),
            ..Container::default()
        },
        ..template()
    };
    expected.pod.sidecars = None;
    expected.pod.volumes.as_mut().unwrap()[0].mount_path = None;
    assert_eq!(w, expected);
}

#[test]
fn each_other_field_replaces_itself() {
    assert_eq!(with(|p| p.tags = vec!["own".into()]).tags, Some(vec!["own".into()]));
    assert_eq!(
        with(|p| p.max_lifetime_seconds = 5).lifecycle.max_lifetime_seconds,
        Some(5)
    );
    assert_eq!(
        with(|p| drop(p.annotations.insert("c".into(), "d".into())))
            .pod
            .pod_annotations
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        with(|p| p.runtime_class = "<node-default>".into())
            .pod
            .runtime_class_name,
        None
    );
    assert_eq!(with(|p| p.network = Some(pb::NetworkOptions::default())).network, None);
    let opened = with(|p| {
        p.services = vec![pb::Service {
            port: 80,
            visibility: pb::Visibility::Private.into(),
            ..pb::Service::default()
        }];
    });
    assert_eq!(opened.ports.as_ref().unwrap()[0].name, "port-80");
    let network = opened.network.unwrap();
    assert_eq!(
        (network.egress, network.ingress.unwrap().rules.len()),
        (template().network.unwrap().egress, 2)
    );
}

#[test]
fn a_volume_that_the_template_mounts_must_remain() {
    let partial = pb::PartialSandboxSpec {
        volumes: vec![pb::SandboxVolume {
            name: "other".into(),
            source: Some(pb::sandbox_volume::Source::Scratch(pb::ScratchVolume::default())),
        }],
        ..pb::PartialSandboxSpec::default()
    };
    let status = draft_from(Some(&template()), into_spec(partial)).err().unwrap();
    assert!(
        status
            .message()
            .starts_with("overrides.volumes: must have the volume \"v\""),
        "{}",
        status.message()
    );
}

#[test]
fn a_template_without_a_lifetime_gets_the_default() {
    let base = Workload::default();
    let w = draft_from(Some(&base), pb::SandboxSpec::default()).unwrap().workload;
    assert_eq!(
        w.lifecycle.max_lifetime_seconds,
        Some(config().default_lifetime_seconds)
    );
}
