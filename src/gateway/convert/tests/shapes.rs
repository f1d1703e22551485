//! What requests are converted to, case by case, and what their responses are.

use super::{container, message_of, minimum, sandbox_of, with, workload};
use crate::api::{
    ANNOTATION_MAIN_NAME, DesiredState, Entrypoint, Sandbox, SandboxSpec, SandboxStatus, SecurityProfile, State,
};
use crate::proto::sandbox as pb;

#[test]
fn the_smallest_request_is_a_command_with_the_default_lifetime() {
    let w = workload(minimum());
    assert_eq!(w.container_image.as_deref(), Some("python:3.11"));
    assert_eq!(w.container.command, Some(vec!["/bin/sh".into()]));
    assert_eq!(w.container.args.as_ref().map(Vec::len), Some(2));
    assert_eq!(
        (
            w.entrypoint,
            w.lifecycle.max_lifetime_seconds,
            w.network,
            w.pod.sidecars
        ),
        (None, Some(600), None, None)
    );
}

#[test]
fn dollars_are_literal_and_are_returned_unchanged() {
    let spec = with(|s| {
        let c = &mut s.containers[0];
        c.args = vec!["$HOME $(X) $$".into()];
        c.environment_variables.insert("A".into(), "$(B)".into());
    });
    let w = workload(spec.clone());
    assert_eq!(w.container.args.unwrap(), ["$$HOME $$(X) $$$$"]);
    assert_eq!(w.container.env.unwrap()[0].value.as_deref(), Some("$$(B)"));
    assert_eq!(
        message_of(&sandbox_of(spec.clone())).spec.unwrap().containers[0].args,
        spec.containers[0].args
    );
}

#[test]
fn without_a_command_the_entrypoint_of_the_image_runs() {
    let w = workload(with(|s| {
        s.containers[0].command.clear();
        s.containers[0].args = vec!["serve".into()];
    }));
    assert_eq!(
        (w.entrypoint, w.container.command, w.container.args),
        (Some(Entrypoint::Image), None, Some(vec!["serve".into()]))
    );
}

#[test]
fn the_primary_container_is_the_main_one_and_keeps_its_name() {
    let spec = with(|s| {
        s.containers = vec![container("redis"), container("app"), container("")];
        s.containers[1].primary = Some(true);
        s.containers[0].command.clear();
        s.containers[0].args.clear();
    });
    let sandbox = sandbox_of(spec);
    let sidecars = sandbox.spec.workload.pod.sidecars.as_ref().unwrap();
    assert_eq!(
        sidecars.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["redis", "container-2"]
    );
    assert_eq!(
        (&sidecars[0].container.command, &sidecars[0].container.args),
        (&None, &None)
    );
    assert_eq!(
        sandbox.metadata.annotations.as_ref().unwrap()[ANNOTATION_MAIN_NAME],
        "app"
    );
    let returned = message_of(&sandbox).spec.unwrap().containers;
    let returned: Vec<_> = returned.iter().map(|c| (c.name.as_str(), c.primary)).collect();
    assert_eq!(returned, [("app", Some(true)), ("redis", None), ("container-2", None)]);
}

#[test]
fn a_registered_volume_is_mounted_only_as_it_was_registered() {
    let mount = |sub_path: &str| pb::VolumeMount {
        volume: "data".into(),
        mount_path: format!("/data/{sub_path}"),
        read_only: false,
        sub_path: sub_path.into(),
    };
    let w = workload(with(|s| {
        s.volumes = vec![pb::SandboxVolume {
            name: "data".into(),
            source: Some(pb::sandbox_volume::Source::VolumeId("part".into())),
        }];
        s.containers[0].volume_mounts = vec![mount(""), mount("x")];
    }));
    assert_eq!(
        w.pod.volumes.unwrap()[0]
            .persistent_volume_claim
            .as_ref()
            .unwrap()
            .claim_name,
        "claim-2"
    );
    let mounts: Vec<_> = w
        .container
        .mounts
        .iter()
        .flatten()
        .map(|m| (m.read_only, m.sub_path.as_deref()))
        .collect();
    assert_eq!(mounts, [(Some(true), Some("team/a")), (Some(true), Some("team/a/x"))]);
}

#[test]
fn gpus_are_limits_and_node_labels() {
    let gpu = pb::Gpu {
        count: 2,
        selector: Some(pb::gpu::Selector::Type("H100".into())),
    };
    let spec = with(|s| {
        s.containers[0].resource_requirements = Some(pb::ResourceRequirements {
            requests: None,
            limits: Some(pb::Resources {
                cpu: "500m".into(),
                memory: "1Gi".into(),
                gpu: Some(gpu.clone()),
            }),
        });
    });
    let sandbox = sandbox_of(spec);
    let resources = sandbox.spec.workload.container.resources.as_ref().unwrap();
    assert_eq!(resources.limits.as_ref().unwrap()["nvidia.com/gpu"].0, "2");
    assert_eq!(resources.requests.as_ref().unwrap()["nvidia.com/gpu"].0, "2");
    assert_eq!(sandbox.spec.workload.pod.node_selector.as_ref().unwrap()["gpu"], "h100");
    let returned = message_of(&sandbox)
        .status
        .unwrap()
        .effective_resource_requirements
        .unwrap()
        .limits
        .unwrap();
    assert_eq!(
        (returned.cpu.as_str(), returned.memory.as_str(), returned.gpu),
        ("500m", "1Gi", Some(gpu))
    );
}

#[test]
fn a_container_can_be_restricted_further() {
    let w = workload(with(|s| {
        s.containers[0].security_context = Some(pb::SecurityContext {
            run_as_user: Some(1234),
            run_as_group: Some(1235),
            privileged: Some(false),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities_add: vec![],
            capabilities_drop: vec!["ALL".into()],
            seccomp_profile: "RuntimeDefault".into(),
        });
    }));
    assert_eq!(
        (
            w.container.run_as_user,
            w.container.run_as_group,
            w.container.read_only_root_filesystem
        ),
        (Some(1234), Some(1235), Some(true))
    );
    assert_eq!(w.container.security_profile, Some(SecurityProfile::Restricted));
}

fn status_in(state: State, desired: DesiredState) -> pb::SandboxStatus {
    let mut sandbox = sandbox_of(with(|s| {
        s.services = vec![pb::Service {
            port: 8080,
            visibility: pb::Visibility::Private.into(),
            ..pb::Service::default()
        }];
    }));
    sandbox.spec.desired_state = desired;
    sandbox.status = Some(SandboxStatus {
        state,
        reason: Some("Why".into()),
        message: Some("in a sentence".into()),
        exit_code: state.is_final().then_some(3),
        max_lifetime_seconds: Some(600),
        ..SandboxStatus::default()
    });
    message_of(&sandbox).status.unwrap()
}

#[test]
fn a_stop_is_terminating_as_soon_as_it_is_requested() {
    use DesiredState::{Running, Stopped};
    for (state, desired, returned) in [
        (State::Pending, Running, pb::State::Pending),
        (State::Creating, Running, pb::State::Creating),
        (State::Running, Running, pb::State::Running),
        (State::Running, Stopped, pb::State::Terminating),
        (State::Pending, Stopped, pb::State::Terminating),
        (State::Completed, Stopped, pb::State::Completed),
        (State::Failed, Running, pb::State::Failed),
        (State::Terminated, Stopped, pb::State::Terminated),
    ] {
        let status = status_in(state, desired);
        assert_eq!(status.state(), returned, "{state:?} {desired:?}");
        assert_eq!(status.exit_code.is_some(), state.is_final());
        assert_eq!(
            (status.state_reason.as_str(), status.effective_max_lifetime_seconds),
            ("Why: in a sentence", 600)
        );
        let url = status.services[0].url.as_str();
        let expected = if returned == pb::State::Running {
            "http://sbx-0123-01234567.tenant.svc:8080"
        } else {
            ""
        };
        assert_eq!(url, expected);
        assert_eq!(
            (status.runner_id.as_str(), status.effective_runtime_class.as_str()),
            ("default", "<node-default>")
        );
    }
}

#[test]
fn a_sandbox_created_with_kubectl_is_converted() {
    let spec: SandboxSpec = serde_json::from_value(serde_json::json!({
        "command": ["sh", "-c", "echo $(X)"],
        "env": [{"name": "A", "value": "1"}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "volumes": [{"name": "v", "mountPath": "/v", "persistentVolumeClaim": {"claimName": "c"}}],
        "ports": [{"name": "web", "port": 80}, {"name": "other", "port": 81}],
        "network": {"ingress": {"rules": [{"cidr": "10.0.0.0/8", "ports": [{"port": 80}]}]}},
    }))
    .unwrap();
    let mut sandbox = Sandbox::new("k", spec);
    sandbox.status = Some(SandboxStatus {
        container_image: Some("python:3.11".into()),
        ..SandboxStatus::default()
    });
    let returned = message_of(&sandbox).spec.unwrap();
    let main = &returned.containers[0];
    assert_eq!(
        (main.name.as_str(), main.image.as_str(), main.command.as_str()),
        ("main", "python:3.11", "sh")
    );
    assert_eq!(main.args, ["-c", "echo $(X)"]);
    assert_eq!(main.environment_variables.len(), 1);
    assert_eq!(
        (
            main.secret_stores[0].store_name.as_str(),
            main.volume_mounts[0].mount_path.as_str()
        ),
        ("s", "/v")
    );
    assert_eq!(
        returned
            .services
            .iter()
            .map(pb::Service::visibility)
            .collect::<Vec<_>>(),
        [pb::Visibility::Custom, pb::Visibility::Unspecified]
    );
    assert_eq!(returned.network.unwrap().ingress.len(), 1);
}
