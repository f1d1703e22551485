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

/// A template that lets a sandbox read one directory of a claim.
#[test]
fn containers_of_a_request_get_no_more_of_a_volume_than_those_of_the_template() {
    let mounts = |volume: serde_json::Value, template_mounts: serde_json::Value, own: pb::VolumeMount| {
        let template = serde_json::from_value(serde_json::json!({
            "volumes": [volume], "mounts": template_mounts,
            "sidecars": [{"name": "log", "image": "busybox", "mounts": [{"name": "v", "mountPath": "/log", "subPath": "log"}]}],
        }))
        .unwrap();
        let containers = |name: &str| pb::PartialContainer {
            name: name.into(),
            image: "python:3.12".into(),
            command: "sh".into(),
            volume_mounts: vec![own.clone()],
            ..pb::PartialContainer::default()
        };
        let partial = pb::PartialSandboxSpec {
            containers: vec![containers("main"), containers("second")],
            ..pb::PartialSandboxSpec::default()
        };
        let w = draft_from(Some(&template), into_spec(partial)).unwrap().workload;
        let of = |c: &Container| c.mounts.clone().unwrap().remove(0);
        let (main, second) = (of(&w.container), of(&w.pod.sidecars.unwrap()[0].container));
        assert_eq!((main.read_only, &main.sub_path), (second.read_only, &second.sub_path));
        (main.read_only, main.sub_path)
    };
    let own = |sub_path: &str| pb::VolumeMount {
        volume: "v".into(),
        mount_path: "/own".into(),
        sub_path: sub_path.into(),
        ..pb::VolumeMount::default()
    };
    let claim = serde_json::json!({"claimName": "c"});
    let mounted = serde_json::json!({"name": "v", "mountPath": "/data", "subPath": "team/a", "readOnly": true, "persistentVolumeClaim": claim});
    let none = serde_json::json!([]);
    assert_eq!(
        mounts(mounted.clone(), none.clone(), own("")),
        (Some(true), Some("team/a".into()))
    );
    assert_eq!(
        mounts(mounted, none.clone(), own("b")),
        (Some(true), Some("team/a/b".into()))
    );
    let bare = serde_json::json!({"name": "v", "persistentVolumeClaim": claim});
    let by_main = serde_json::json!([{"name": "v", "mountPath": "/data", "subPath": "team/a", "readOnly": true}]);
    assert_eq!(
        mounts(bare.clone(), by_main, own("")),
        (Some(true), Some("team/a".into()))
    );
    assert_eq!(
        mounts(bare, none, own("")),
        (None, Some("log".into())),
        "only its sidecar mounts it"
    );
}
