//! From the status of a Sandbox to that of the API.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::network::to_proto as network;
use super::request_metadata::{RequestMetadata, main_name};
use super::{resources, runtime_class, services};
use crate::api::{DesiredState, Sandbox, SandboxStatus, State};
use crate::gateway::config::{Config, Runner};
use crate::proto::sandbox as pb;
use crate::resources::service;

/// The state of a sandbox. It is TERMINATING as soon as a stop is requested: the operator may update the status a
/// moment later.
pub(crate) fn state(sandbox: &Sandbox) -> State {
    let state = sandbox.state();
    let is_ending =
        sandbox.spec.desired_state == DesiredState::Stopped || sandbox.metadata.deletion_timestamp.is_some();
    if is_ending && !state.is_final() {
        State::Terminating
    } else {
        state
    }
}

/// The state in the API.
pub(crate) fn state_to_proto(state: State) -> pb::State {
    match state {
        State::Pending => pb::State::Pending,
        State::Creating => pb::State::Creating,
        State::Running => pb::State::Running,
        State::Terminating => pb::State::Terminating,
        State::Completed => pb::State::Completed,
        State::Failed => pb::State::Failed,
        State::Terminated => pb::State::Terminated,
    }
}

/// Converts the status. `runner`: where the sandbox runs, if that is known.
pub(crate) fn status(
    sandbox: &Sandbox,
    metadata: &RequestMetadata,
    config: &Config,
    runner: Option<&Runner>,
) -> pb::SandboxStatus {
    let w = &sandbox.spec.workload;
    let empty = SandboxStatus::default();
    let status = sandbox.status.as_ref().unwrap_or(&empty);
    let state = state(sandbox);
    let wire_state = state_to_proto(state).into();
    let lifetime = status.max_lifetime_seconds.or(w.lifecycle.max_lifetime_seconds);
    let rules = w
        .network
        .as_ref()
        .and_then(|n| n.ingress.as_ref())
        .map(|i| i.rules.as_slice());
    let requirements = resources::to_proto(
        w.container.resources.as_ref(),
        w.pod.node_selector.as_ref(),
        &config.gpus,
    );
    pb::SandboxStatus {
        state: wire_state,
        state_reason: state_reason(status),
        create_time: time(sandbox.metadata.creation_timestamp.as_ref()),
        start_time: time(status.started_at.as_ref()),
        end_time: time(status.finished_at.as_ref()),
        services: service_statuses(sandbox, metadata, state),
        resource_usage: None,
        exit_code: status.exit_code,
        effective_resources: requirements.as_ref().and_then(|r| r.limits.clone()),
        effective_max_lifetime_seconds: lifetime.and_then(|s| i32::try_from(s).ok()).unwrap_or_default(),
        container_statuses: vec![pb::ContainerStatus {
            name: main_name(sandbox).into(),
            state: wire_state,
            exit_code: status.exit_code.unwrap_or_default(),
            // The main container never restarts.
            restart_count: 0,
        }],
        runner_id: runner.map(|r| r.id.clone()).unwrap_or_default(),
        runner_group_id: runner.map(|r| r.group_id.clone()).unwrap_or_default(),
        effective_ingress: network::ingress_to_proto(rules.unwrap_or_default()),
        effective_egress: network::effective_egress(w.network.as_ref()),
        effective_resource_requirements: requirements,
        attached_volume_ids: metadata.volumes.values().cloned().collect(),
        effective_runtime_class: runtime_class::effective(w),
        effective_dns_egress: network::effective_dns(w.network.as_ref()).into(),
    }
}

/// The statuses of the additional containers.
pub(crate) fn sidecars(sandbox: &Sandbox, pod: &Pod) -> Vec<pb::ContainerStatus> {
    let statuses = pod.status.as_ref().and_then(|s| s.init_container_statuses.as_ref());
    let is_sidecar = |name: &str| {
        sandbox
            .spec
            .workload
            .pod
            .sidecars
            .iter()
            .flatten()
            .any(|s| s.name == name)
    };
    let statuses = statuses.into_iter().flatten().filter(|c| is_sidecar(&c.name));
    let converted = statuses.map(|container| {
        let terminated = container.state.as_ref().and_then(|s| s.terminated.as_ref());
        let is_running = container.state.as_ref().is_some_and(|s| s.running.is_some());
        let state = match terminated {
            Some(terminated) if terminated.exit_code == 0 => State::Completed,
            Some(_) => State::Failed,
            None if is_running => State::Running,
            None => State::Creating,
        };
        pb::ContainerStatus {
            name: container.name.clone(),
            state: state_to_proto(state).into(),
            exit_code: terminated.map(|e| e.exit_code).unwrap_or_default(),
            restart_count: container.restart_count,
        }
    });
    converted.collect()
}

fn state_reason(status: &SandboxStatus) -> String {
    match (&status.reason, &status.message) {
        (Some(reason), Some(message)) if !message.is_empty() => format!("{reason}: {message}"),
        (reason, message) => reason.clone().or_else(|| message.clone()).unwrap_or_default(),
    }
}

/// A service has a URL while the sandbox runs, if anyone can connect to it.
fn service_statuses(sandbox: &Sandbox, metadata: &RequestMetadata, state: State) -> Vec<pb::ServiceStatus> {
    let w = &sandbox.spec.workload;
    let ports = w.ports.as_deref().unwrap_or_default();
    let rules = w
        .network
        .as_ref()
        .and_then(|n| n.ingress.as_ref())
        .map(|i| i.rules.as_slice());
    let host = service::host(sandbox);
    let converted = services::to_proto(ports, &metadata.visibilities, rules.unwrap_or_default());
    ports
        .iter()
        .zip(converted)
        .map(|(port, service)| {
            let reachable = state == State::Running && service.visibility != i32::from(pb::Visibility::Unspecified);
            pb::ServiceStatus {
                port: service.port,
                name: service.name,
                protocol: service.protocol,
                visibility: service.visibility,
                endpoint: None,
                url: if reachable {
                    service::url(port, &format!("{host}:{}", port.port))
                } else {
                    String::new()
                },
            }
        })
        .collect()
}

/// Converts a time.
pub(crate) fn time(time: Option<&Time>) -> Option<prost_types::Timestamp> {
    let time = time?.0;
    Some(prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    })
}
