//! From the id of a sandbox to the agent in one of its containers.

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::ResourceExt;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

use super::stdio;
use crate::agent_client::{Agent, Target};
use crate::api::{ANNOTATION_AGENT_KEY, Sandbox, State};
use crate::gateway::convert::to_proto::main_name;
use crate::gateway::error::{Violation, invalid, of_kube, reason, retry, sandbox_not_found, status};
use crate::gateway::identity::Caller;
use crate::gateway::state::Gateway;
use crate::kube::ApiClient;
use crate::resources::pod_containers::MAIN;

/// What is known of a pod is used for this long.
const KNOWN: Duration = Duration::from_secs(60);
/// Pods that are remembered at most.
const MANY: usize = 10_000;
/// How long a container that is ending may take to be reported as ended.
const ENDING: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The agents whose pods were looked up a moment ago, by the UID of the Sandbox.
#[derive(Clone, Default)]
pub struct Agents(Arc<Mutex<HashMap<String, (Instant, Target)>>>);

impl Agents {
    fn known(&self, sandbox_uid: &str) -> Option<Target> {
        let agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, target) = agents.get(sandbox_uid)?;
        (since.elapsed() < KNOWN).then(|| target.clone())
    }

    fn remember(&self, sandbox_uid: &str, target: Target) {
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if agents.len() >= MANY {
            agents.retain(|_, (since, _)| since.elapsed() < KNOWN);
        }
        if agents.len() < MANY {
            agents.insert(sandbox_uid.into(), (Instant::now(), target));
        }
    }

    fn forget(&self, sandbox_uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox_uid);
    }
}

/// A container whose agent can be called.
pub struct Place {
    /// Its agent.
    pub agent: Agent,
    cluster: ApiClient,
    agents: Agents,
    sandbox_uid: String,
    namespace: String,
    pod: String,
    container: String,
    /// What was said on the way to an agent that is reached through the API server.
    said: Option<stdio::Said>,
}

/// The caller's sandbox of this id: from the cache, and where that has not heard of it (its creation may be a moment old, or another
/// replica's) from the API server.
///
/// # Errors
/// NOT_FOUND, also for a sandbox of another tenant; UNAVAILABLE when the API server does not answer.
pub async fn sandbox(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Arc<Sandbox>, Status> {
    find(gateway, caller, id).await?.ok_or_else(|| sandbox_not_found(id))
}

/// As [`sandbox`]; none if there is none.
///
/// # Errors
/// UNAVAILABLE when the API server does not answer.
pub async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Option<Arc<Sandbox>>, Status> {
    match gateway.caches.sandbox(&caller.namespace, id) {
        Some(sandbox) => Ok(Some(sandbox)),
        None => read(gateway, caller, id).await,
    }
}

/// The caller's sandbox of this id, as it is.
///
/// # Errors
/// As [`sandbox`].
pub async fn live(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Arc<Sandbox>, Status> {
    read(gateway, caller, id).await?.ok_or_else(|| sandbox_not_found(id))
}

async fn read(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Option<Arc<Sandbox>>, Status> {
    if !is_name(id) {
        return Ok(None);
    }
    let found = gateway.cluster.get::<Sandbox>(&caller.namespace, id).await;
    Ok(found.map_err(|e| of_kube("reading the sandbox", &e))?.map(Arc::new))
}

/// What can be a sandbox's name. Anything else must not become part of a path.
fn is_name(id: &str) -> bool {
    (1..=63).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn state(sandbox: &Sandbox) -> State {
    sandbox.status.as_ref().map(|s| s.state).unwrap_or_default()
}

/// The container that a request means: by its name in the pod.
pub fn container_name(sandbox: &Sandbox, wanted: &str) -> String {
    let is_main = wanted.is_empty() || wanted == main_name(sandbox);
    if is_main { MAIN.into() } else { wanted.into() }
}

/// FAILED_PRECONDITION, with what the sandbox does instead of running.
pub fn not_running(sandbox: &Sandbox) -> Status {
    let text = format!("sandbox {} is {}", sandbox.name_any(), state(sandbox).as_str());
    status(Code::FailedPrecondition, reason::SANDBOX_NOT_RUNNING, text)
}

/// FAILED_PRECONDITION of one container, which may be another than the one by which the sandbox runs.
fn container_not_running(sandbox: &Sandbox, container: &str) -> Status {
    let name = if container == MAIN { main_name(sandbox) } else { container };
    let text = format!("container {name} of sandbox {} is not running", sandbox.name_any());
    status(Code::FailedPrecondition, reason::SANDBOX_NOT_RUNNING, text)
}

/// The pod of a sandbox, as it is: none if it is gone, or if another has its name.
///
/// # Errors
/// UNAVAILABLE when the API server does not answer.
pub async fn pod(cluster: &ApiClient, sandbox: &Sandbox) -> Result<Option<Pod>, Status> {
    let namespace = sandbox.namespace().unwrap_or_default();
    let Some(name) = sandbox.status.as_ref().and_then(|s| s.pod_name.as_deref()) else {
        return Ok(None);
    };
    let found = cluster.get::<Pod>(&namespace, name).await;
    let found = found.map_err(|e| of_kube("reading the sandbox's pod", &e))?;
    Ok(found.filter(|pod| is_of(pod, &sandbox.uid().unwrap_or_default())))
}

/// Whether the Sandbox of this UID made the pod.
fn is_of(pod: &Pod, sandbox_uid: &str) -> bool {
    pod.owner_references().iter().any(|o| o.controller == Some(true) && o.uid == sandbox_uid)
}

/// The state of a container; of none that the pod does not have.
pub fn container_state(pod: &Pod, container: &str) -> Option<ContainerState> {
    let spec = pod.spec.as_ref()?;
    // What runs beside the main one is an init container that is always restarted; the others have done their work.
    let beside = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(beside).find(|c| c.name == container)?;
    let status = pod.status.as_ref();
    let main = status.and_then(|s| s.container_statuses.as_ref());
    let beside = status.and_then(|s| s.init_container_statuses.as_ref());
    let found = main.into_iter().chain(beside).flatten().find(|c| c.name == container);
    Some(found.and_then(|c| c.state.clone()).unwrap_or_default())
}

/// INVALID_ARGUMENT that names the container.
pub fn no_container(name: &str) -> Status {
    let name: String = name.chars().take(63).collect();
    invalid(vec![Violation::new("container", format!("the sandbox has no container {name:?}"))])
}

/// The agent in a container of a sandbox that runs.
///
/// # Errors
/// NOT_FOUND, FAILED_PRECONDITION if it does not run, INVALID_ARGUMENT without such a container, UNAVAILABLE.
pub async fn place(gateway: &Gateway, caller: &Caller, id: &str, container: &str) -> Result<Place, Status> {
    let mut found = sandbox(gateway, caller, id).await?;
    if state(&found) != State::Running {
        // The caller may know better than the cache.
        found = live(gateway, caller, id).await?;
    }
    if state(&found) != State::Running {
        return Err(not_running(&found));
    }
    let container = container_name(&found, container);
    let sandbox_uid = found.uid().unwrap_or_default();
    let known = gateway.known_agents.known(&sandbox_uid).filter(|_| container == MAIN);
    let (target, pod_name) = match known {
        Some(target) => (Some(target), found.status.as_ref().and_then(|s| s.pod_name.clone()).unwrap_or_default()),
        None => {
            let pod = pod(&gateway.cluster, &found).await?.ok_or_else(|| not_running(&found))?;
            let state = container_state(&pod, &container).ok_or_else(|| no_container(&container))?;
            if state.running.is_none() {
                return Err(container_not_running(&found, &container));
            }
            let target = (container == MAIN).then(|| target(&pod, gateway.config.agents.port)).flatten();
            if let Some(target) = &target {
                gateway.known_agents.remember(&sandbox_uid, target.clone());
            }
            (target, pod.name_any())
        }
    };
    let (agent, said) = match target {
        Some(target) => {
            let agent = gateway.agents.agent(&target).map_err(|error| {
                tracing::warn!(sandbox = id, error = crate::telemetry::chain(&error), "key of an agent");
                unavailable("the key of the sandbox's agent is not known")
            })?;
            (agent, None)
        }
        None if gateway.config.agents.exec_via_api_server => {
            let (agent, said) = stdio::connect(&gateway.cluster, &caller.namespace, &pod_name, &container).await?;
            (agent, Some(said))
        }
        None => {
            let text = format!("container {container} has no agent of its own, and pods/exec is switched off");
            return Err(status(Code::Unimplemented, reason::NOT_IMPLEMENTED, text));
        }
    };
    Ok(Place {
        agent,
        cluster: gateway.cluster.clone(),
        agents: gateway.known_agents.clone(),
        sandbox_uid,
        namespace: caller.namespace.clone(),
        pod: pod_name,
        container,
        said,
    })
}

/// Where the pod's own agent is; none where the image's entrypoint runs in its place. The address is the live pod's: the record of it
/// in the Sandbox's status could be another's by now.
fn target(pod: &Pod, port: u16) -> Option<Target> {
    let ip: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    Some(Target {
        pod_uid: pod.uid()?,
        ip,
        port,
        key_id: pod.annotations().get(ANNOTATION_AGENT_KEY)?.clone(),
        started_at: container_state(pod, MAIN)?.running.and_then(|r| r.started_at).map(|t| t.0),
    })
}

fn unavailable(text: &str) -> Status {
    retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, text, Duration::from_secs(1))
}

impl Place {
    /// What it means to the caller that the call to the agent failed with `error`, or ended before it should.
    pub async fn lost(&self, error: &Status) -> Status {
        let text = format!("the sandbox's agent: {}", error.message().chars().take(300).collect::<String>());
        match error.code() {
            Code::ResourceExhausted => return retry(Code::Unavailable, reason::BACKEND_UNAVAILABLE, text, Duration::from_secs(1)),
            Code::InvalidArgument => return invalid(vec![Violation::new("request", text)]),
            Code::FailedPrecondition => return status(Code::FailedPrecondition, reason::INVALID_REQUEST, text),
            Code::DeadlineExceeded => return super::deadline::exceeded(),
            _ => {}
        }
        self.agents.forget(&self.sandbox_uid);
        tracing::info!(namespace = self.namespace, pod = self.pod, code = ?error.code(), error = text, "call to an agent was lost");
        if let Some(said) = self.said.as_ref().and_then(stdio::Said::text) {
            let text = format!("no agent could be started in container {}: {said}", self.container);
            return status(Code::FailedPrecondition, reason::NOT_IMPLEMENTED, text);
        }
        if self.ended().await {
            return status(Code::Cancelled, reason::SANDBOX_NOT_RUNNING, "the sandbox has ended meanwhile");
        }
        unavailable("the connection to the sandbox was lost")
    }

    /// Whether the container has ended. A connection is lost a moment before the API server knows why.
    async fn ended(&self) -> bool {
        let (until, mut pause) = (Instant::now() + ENDING, LOOK_AGAIN);
        loop {
            match self.cluster.get::<Pod>(&self.namespace, &self.pod).await {
                Ok(None) => return true,
                Ok(Some(pod)) if !is_of(&pod, &self.sandbox_uid) => return true,
                Ok(Some(pod)) if pod.metadata.deletion_timestamp.is_some() => return true,
                Ok(Some(pod)) if container_state(&pod, &self.container).is_none_or(|s| s.running.is_none()) => return true,
                Ok(Some(_)) if Instant::now() < until => tokio::time::sleep(pause).await,
                Ok(Some(_)) | Err(_) => return false,
            }
            // A sandbox can lose as many calls as it likes: few questions for each.
            pause *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_names_go_to_the_api_server() {
        assert!(is_name("a-1"));
        for wrong in ["", "a/b", "..", "A", "a b", &"a".repeat(64), "a?x", "ä"] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_pod_is_a_sandboxs_by_the_uid_of_its_controller() {
        let owned = |controller: bool, uid: &str| {
            pod(
                json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Sandbox", "name": "a", "uid": uid, "controller": controller}]}}),
            )
        };
        assert!(is_of(&owned(true, "u"), "u"));
        assert!(!is_of(&owned(false, "u"), "u"));
        assert!(!is_of(&owned(true, "v"), "u"));
        assert!(!is_of(&Pod::default(), "u"));
    }

    #[test]
    fn containers_are_the_main_one_and_those_beside_it() {
        let pod = pod(json!({
            "metadata": {"uid": "p", "annotations": {"sandbox-operator.dev/agent-key": "k"}},
            "spec": {"containers": [{"name": "main"}], "initContainers": [{"name": "redis", "restartPolicy": "Always"}, {"name": "install"}]},
            "status": {"podIP": "10.0.0.7",
                "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}],
                "initContainerStatuses": [{"name": "install", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}
        }));
        assert!(container_state(&pod, "main").unwrap().running.is_some());
        assert_eq!(container_state(&pod, "redis"), Some(ContainerState::default()), "not started yet");
        assert_eq!(container_state(&pod, "install"), None);
        assert_eq!(container_state(&pod, "other"), None);
        let target = target(&pod, crate::agent_contract::DEFAULT_PORT).unwrap();
        assert_eq!(
            (target.pod_uid.as_str(), target.ip.to_string().as_str(), target.key_id.as_str()),
            ("p", "10.0.0.7", "k")
        );
    }

    #[test]
    fn the_main_container_goes_by_the_name_its_creator_gave_it() {
        let mut sandbox = Sandbox::default();
        assert_eq!(
            (container_name(&sandbox, ""), container_name(&sandbox, "redis")),
            ("main".into(), "redis".into())
        );
        sandbox.metadata.annotations = Some([(crate::api::ANNOTATION_MAIN_NAME.to_owned(), "web".to_owned())].into());
        assert_eq!(
            (container_name(&sandbox, "web"), container_name(&sandbox, "")),
            ("main".into(), "main".into())
        );
    }
}
