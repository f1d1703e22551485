//! Handles to the agents in the containers of running sandboxes.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

use crate::agent_client::{Agent, AgentClient, AgentEndpoint};
use crate::api::{ANNOTATION_AGENT_KEY, Sandbox, State};
use crate::gateway::config;
use crate::gateway::convert::request_metadata::main_name;
use crate::gateway::dataplane::{deadline, stdio};
use crate::gateway::error::{Violation, invalid, reason, retry, status};
use crate::gateway::sandboxes::lookup::{
    SandboxLookup, container_name, container_state, is_controlled_by, no_container, not_running,
};
use crate::kube::ApiClient;
use crate::resources::pod_containers::MAIN;

/// Time for which an agent's address is cached.
const TARGET_TTL: Duration = Duration::from_secs(60);
/// Agents whose addresses are cached.
const MAX_TARGETS: usize = 10_000;
/// How long a container that has stopped may take to be reported as terminated.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The agents of all sandboxes.
pub(crate) struct Agents {
    lookup: SandboxLookup,
    client: AgentClient,
    config: config::Agents,
    targets: Targets,
}

/// Addresses of agents by the UID of the Sandbox.
#[derive(Clone, Default)]
struct Targets(Arc<Mutex<HashMap<String, (Instant, AgentEndpoint)>>>);

impl Targets {
    fn get(&self, sandbox_uid: &str) -> Option<AgentEndpoint> {
        let targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, target) = targets.get(sandbox_uid)?;
        (since.elapsed() < TARGET_TTL).then(|| target.clone())
    }

    fn insert(&self, sandbox_uid: &str, target: AgentEndpoint) {
        let mut targets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if targets.len() >= MAX_TARGETS {
            targets.retain(|_, (since, _)| since.elapsed() < TARGET_TTL);
        }
        if targets.len() < MAX_TARGETS {
            targets.insert(sandbox_uid.into(), (Instant::now(), target));
        }
    }

    fn remove(&self, sandbox_uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(sandbox_uid);
    }
}

/// A container whose agent can be called.
pub(crate) struct AgentHandle {
    /// Its agent.
    pub(crate) agent: Agent,
    api: ApiClient,
    targets: Targets,
    sandbox_uid: String,
    namespace: String,
    pod: String,
    container: String,
    /// For an agent that runs through `pods/exec`.
    diagnostics: Option<stdio::StartupDiagnostics>,
}

impl Agents {
    /// Agents of the sandboxes that `lookup` finds.
    pub(crate) fn new(lookup: SandboxLookup, client: AgentClient, config: config::Agents) -> Agents {
        Agents {
            lookup,
            client,
            config,
            targets: Targets::default(),
        }
    }

    /// The agent in a container of a running sandbox.
    ///
    /// # Errors
    /// NOT_FOUND; FAILED_PRECONDITION unless the sandbox and the container are running; INVALID_ARGUMENT without such a
    /// container; UNAVAILABLE.
    pub(crate) async fn handle(&self, namespace: &str, id: &str, container: &str) -> Result<AgentHandle, Status> {
        let mut sandbox = self.lookup.get(namespace, id).await?;
        if sandbox.state() != State::Running {
            // The caller may know of a newer state than the cache.
            sandbox = self.lookup.get_live(namespace, id).await?;
        }
        if sandbox.state() != State::Running {
            return Err(not_running(&sandbox));
        }
        let container = container_name(&sandbox, container);
        let sandbox_uid = sandbox.uid().unwrap_or_default();
        let cached = self.targets.get(&sandbox_uid).filter(|_| container == MAIN);
        let (target, pod) = match cached {
            Some(target) => (
                Some(target),
                sandbox
                    .status
                    .as_ref()
                    .and_then(|s| s.pod_name.clone())
                    .unwrap_or_default(),
            ),
            None => self.find(&sandbox, &container).await?,
        };
        let (agent, diagnostics) = match target {
            Some(target) => (self.direct(id, &target)?, None),
            None if self.config.exec_via_api_server => {
                let (agent, diagnostics) = stdio::start(&self.lookup.api, namespace, &pod, &container).await?;
                (agent, Some(diagnostics))
            }
            None => {
                let text = format!(
                    "container {container} has no agent of its own: it is a sidecar, or runs its image's entrypoint; \
                     exec and files there need gateway.execViaApiServer in the chart's values"
                );
                return Err(status(Code::Unimplemented, reason::NOT_IMPLEMENTED, text));
            }
        };
        Ok(AgentHandle {
            agent,
            api: self.lookup.api.clone(),
            targets: self.targets.clone(),
            sandbox_uid,
            namespace: namespace.into(),
            pod,
            container,
            diagnostics,
        })
    }

    /// The address of the container's agent, if it has one of its own, and the pod's name.
    async fn find(&self, sandbox: &Sandbox, container: &str) -> Result<(Option<AgentEndpoint>, String), Status> {
        let pod = self.lookup.pod(sandbox).await?.ok_or_else(|| not_running(sandbox))?;
        let state = container_state(&pod, container).ok_or_else(|| no_container(container))?;
        if state.running.is_none() {
            return Err(container_not_running(sandbox, container));
        }
        let target = (container == MAIN).then(|| target(&pod, self.config.port)).flatten();
        if let Some(target) = &target {
            self.targets.insert(&sandbox.uid().unwrap_or_default(), target.clone());
        }
        Ok((target, pod.name_any()))
    }

    fn direct(&self, id: &str, target: &AgentEndpoint) -> Result<Agent, Status> {
        self.client.agent(target).map_err(|error| {
            tracing::warn!(
                sandbox = id,
                error = crate::telemetry::chain(&error),
                "no key for an agent"
            );
            unavailable("the gateway does not have the key of the sandbox's agent")
        })
    }
}

/// FAILED_PRECONDITION of one container of a sandbox that is running.
fn container_not_running(sandbox: &Sandbox, container: &str) -> Status {
    let name = if container == MAIN {
        main_name(sandbox)
    } else {
        container
    };
    let text = format!("container {name} of sandbox {} is not running", sandbox.name_any());
    status(Code::FailedPrecondition, reason::SANDBOX_NOT_RUNNING, text)
}

/// The address of the pod's own agent; `None` if the image's entrypoint runs instead. It comes from the live pod, since
/// that in the Sandbox's status may belong to another pod by now.
fn target(pod: &Pod, port: u16) -> Option<AgentEndpoint> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(AgentEndpoint {
        pod_uid: pod.uid()?,
        ip,
        port,
        key_id: pod.annotations().get(ANNOTATION_AGENT_KEY)?.clone(),
        started_at: container_state(pod, MAIN)?
            .running
            .and_then(|r| r.started_at)
            .map(|t| t.0),
    })
}

fn unavailable(text: &str) -> Status {
    retry(
        Code::Unavailable,
        reason::BACKEND_UNAVAILABLE,
        text,
        Duration::from_secs(1),
    )
}

impl AgentHandle {
    /// The caller's error for a call to the agent that failed with `error`, or ended early.
    pub(crate) async fn to_caller_error(&self, error: &Status) -> Status {
        let text = format!(
            "the sandbox's agent: {}",
            error.message().chars().take(300).collect::<String>()
        );
        match error.code() {
            Code::ResourceExhausted => {
                return retry(
                    Code::Unavailable,
                    reason::BACKEND_UNAVAILABLE,
                    text,
                    Duration::from_secs(1),
                );
            }
            Code::InvalidArgument => return invalid(vec![Violation::new("request", text)]),
            Code::FailedPrecondition => return status(Code::FailedPrecondition, reason::INVALID_REQUEST, text),
            Code::DeadlineExceeded => return deadline::exceeded(),
            _ => {}
        }
        self.targets.remove(&self.sandbox_uid);
        tracing::info!(namespace = self.namespace, pod = self.pod, code = ?error.code(), error = text, "call to an agent failed");
        if let Some(output) = self.diagnostics.as_ref().and_then(stdio::StartupDiagnostics::text) {
            let text = format!(
                "the agent could not be started in container {}: {output}",
                self.container
            );
            return status(Code::FailedPrecondition, reason::NOT_IMPLEMENTED, text);
        }
        if self.has_terminated().await {
            return status(Code::Cancelled, reason::SANDBOX_NOT_RUNNING, "the sandbox has ended");
        }
        unavailable("the connection to the sandbox was lost")
    }

    /// Whether the container has terminated. The connection is lost a moment before the API server reports that.
    async fn has_terminated(&self) -> bool {
        let (until, mut interval) = (Instant::now() + TERMINATION_TIMEOUT, POLL_INTERVAL);
        loop {
            match self.api.get::<Pod>(&self.namespace, &self.pod).await {
                Ok(None) => return true,
                Ok(Some(pod)) if !is_controlled_by(&pod, &self.sandbox_uid) => return true,
                Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() => return true,
                Ok(Some(pod)) if container_state(&pod, &self.container).is_none_or(|s| s.running.is_none()) => {
                    return true;
                }
                Ok(Some(_)) if Instant::now() < until => tokio::time::sleep(interval).await,
                Ok(Some(_)) | Err(_) => return false,
            }
            // Doubles, since many calls may fail at the same time.
            interval *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent_contract::DEFAULT_PORT;
    use serde_json::json;

    #[test]
    fn the_target_comes_from_the_live_pod() {
        let object = json!({
            "metadata": {"uid": "p", "annotations": {"sandbox-operator.dev/agent-key": "k"}},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"podIP": "10.0.0.7", "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}
        });
        let pod: Pod = serde_json::from_value(object).unwrap();
        let target = target(&pod, DEFAULT_PORT).unwrap();
        assert_eq!(
            (
                target.pod_uid.as_str(),
                target.ip.to_string().as_str(),
                target.key_id.as_str()
            ),
            ("p", "10.0.0.7", "k")
        );
        assert_eq!(target.started_at, Some("2026-01-01T00:00:00Z".parse().unwrap()));
    }
}
