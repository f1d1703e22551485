//! What decisions need to know of a pod: plain data, read from the API object.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec};

use crate::agent_contract::MAIN_EXITED_WITH_255;
use crate::api::limits::MAX_MESSAGE;
use crate::api::{ANNOTATION_AGENT_KEY, reason};
use crate::operator::apply::Target;
use crate::resources::names;
use crate::resources::pod_containers::{INSTALL_AGENT, MAIN};
use crate::resources::prepare::is_preparation;
use crate::text::short;

/// Most bytes that are shown of what a main command writes to `/dev/termination-log`.
const MAX_TERMINATION_MESSAGE: usize = 1024;

/// Maximum number of scheduling gates that are kept of a pod: webhooks add them, and a message names them.
const MAX_GATES: usize = 16;

/// Maximum size of the id of an agent's key, in bytes.
const MAX_KEY_ID: usize = 64;

/// Longest time between start and end of a container whose process could not be executed: the kubelet reports whole
/// seconds.
const A_MOMENT: SignedDuration = SignedDuration::from_secs(1);

/// The fields of a pod that decisions depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodView {
    pub uid: String,
    pub name: String,
    /// UID of the network policy that owns the pod.
    pub policy_uid: Option<String>,
    pub ip: Option<String>,
    /// The node to which the pod is bound.
    pub node: Option<String>,
    pub bound_at: Option<Timestamp>,
    /// Phase `Succeeded` or `Failed`. Its containers may still run: see `can_run`.
    pub has_final_phase: bool,
    /// Whether any container runs or may still start.
    pub can_run: bool,
    /// Whether an ordinary container runs beside the main one. We create none, but an admission webhook may add one.
    pub other_runs: bool,
    /// `metadata.deletionTimestamp`: when the grace period of the deletion ends.
    pub deletes_at: Option<Timestamp>,
    /// `status.reason`: DeadlineExceeded, Evicted, …
    pub reason: Option<String>,
    pub message: Option<String>,
    /// When the kubelet accepted the pod.
    pub started_at: Option<Timestamp>,
    /// `spec.activeDeadlineSeconds`.
    pub deadline: Option<i64>,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Option<i64>,
    /// Our reason for the pod's `DisruptionTarget` condition.
    pub disruption: Option<&'static str>,
    pub scheduling: Scheduling,
    /// Id of the key with which the pod's agent is called. None where the image's own entrypoint runs in place of the
    /// agent.
    pub agent_key: Option<String>,
    pub main: MainState,
    /// What keeps a container from starting.
    pub problem: Option<StartProblem>,
}

/// What the scheduler says of a pod that has no node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Scheduling {
    /// Nothing of note.
    #[default]
    Waiting,
    /// No node fits: the scheduler's message.
    Unschedulable(String),
    /// The scheduler ignores the pod until its scheduling gates are removed.
    Gated {
        /// Names of the gates.
        gates: Vec<String>,
        /// Message of the pod's condition.
        message: String,
    },
}

/// State of the main container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum MainState {
    #[default]
    Waiting,
    /// Running since then.
    Running(Option<Timestamp>),
    Terminated(Exit),
}

/// How the main container ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exit {
    /// The kubelet's reason.
    pub reason: String,
    pub message: Option<String>,
    /// None where the kubelet invented it.
    pub code: Option<i32>,
    /// None where the kubelet invented it.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

/// What keeps a container from starting.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StartProblem {
    /// One of our reasons.
    pub reason: &'static str,
    /// The kubelet's message.
    pub message: String,
    /// Whether waiting cannot help.
    pub is_fatal: bool,
}

impl PodView {
    pub(crate) fn new(pod: &Pod) -> PodView {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let conditions = status.conditions.unwrap_or_default();
        let condition = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
        let ordinary = status.container_statuses.as_deref().unwrap_or_default();
        let init = status.init_container_statuses.as_deref().unwrap_or_default();
        let ephemeral = status.ephemeral_container_statuses.as_deref().unwrap_or_default();
        let node = spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        let has_final_phase = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let deletes_at = pod.metadata.deletion_timestamp.as_ref().map(|t| t.0);
        let agent_key = pod
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(ANNOTATION_AGENT_KEY).cloned())
            .filter(|id| id.len() <= MAX_KEY_ID);
        // Before the final phase also a container may start that has no status yet. A pod that is deleted is not bound
        // to a node any more.
        let declared = spec.map_or(0, |s| s.containers.len()).max(1);
        let may_start = !has_final_phase
            && (node.is_some() || deletes_at.is_none())
            && ordinary.iter().filter(|s| is_terminated(s)).count() < declared;
        PodView {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            policy_uid: names::policy_owner(&pod.metadata).map(Into::into),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            node,
            bound_at: condition("PodScheduled")
                .filter(|c| c.status == "True")
                .and_then(|c| Some(c.last_transition_time.as_ref()?.0)),
            has_final_phase,
            can_run: may_start || init.iter().chain(ordinary).chain(ephemeral).any(is_running),
            other_runs: ordinary.iter().any(|s| s.name != MAIN && is_running(s)),
            deletes_at,
            reason: status.reason,
            message: status.message.as_deref().map(bounded),
            started_at: status.start_time.map(|t| t.0),
            deadline: spec.and_then(|s| s.active_deadline_seconds),
            grace: spec.and_then(|s| s.termination_grace_period_seconds),
            disruption: condition("DisruptionTarget")
                .filter(|c| c.status == "True")
                .map(disruption),
            scheduling: condition("PodScheduled")
                .map(|c| scheduling(c, spec))
                .unwrap_or_default(),
            main: ordinary
                .iter()
                .find(|s| s.name == MAIN)
                .map(|s| main_state(s, agent_key.is_some()))
                .unwrap_or_default(),
            agent_key,
            problem: init.iter().chain(ordinary).find_map(start_problem),
        }
    }

    /// Whether there is an agent to call.
    pub(crate) fn has_agent(&self) -> bool {
        self.agent_key.is_some() && self.ip.is_some() && matches!(self.main, MainState::Running(_))
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.deletes_at.is_some()
    }

    /// Whether no container of it can run any more. The phase alone does not say so: it may be final while containers
    /// are in their grace period.
    pub(crate) fn has_terminated(&self) -> bool {
        !self.can_run
    }

    /// Whether the main container never ran, as far as its status says.
    pub(crate) fn main_never_ran(&self) -> bool {
        match &self.main {
            MainState::Waiting => true,
            MainState::Running(_) => false,
            MainState::Terminated(exit) => exit.failed_to_start(),
        }
    }

    /// Whether the kubelet has to end the pod: with a deadline of one second.
    pub(crate) fn has_been_expired(&self) -> bool {
        self.deadline == Some(1)
    }
}

impl Exit {
    fn failed_to_start(&self) -> bool {
        matches!(self.reason.as_str(), "StartError" | "ContainerCannotRun")
    }

    fn lasted_at_most(&self, most: SignedDuration) -> bool {
        self.started_at
            .zip(self.finished_at)
            .is_some_and(|(start, end)| end.duration_since(start) <= most)
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn is_terminated(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.terminated.is_some())
}

fn disruption(condition: &PodCondition) -> &'static str {
    match condition.reason.as_deref() {
        Some("PreemptionByScheduler") => reason::PREEMPTED,
        Some("EvictionByEvictionAPI" | "TerminationByKubelet") => reason::EVICTED,
        Some("DeletionByTaintManager" | "DeletionByPodGC") => reason::NODE_LOST,
        _ => reason::POD_DELETED,
    }
}

fn scheduling(condition: &PodCondition, spec: Option<&PodSpec>) -> Scheduling {
    let message = bounded(condition.message.as_deref().unwrap_or_default());
    match condition.reason.as_deref() {
        Some("Unschedulable") if condition.status == "False" => Scheduling::Unschedulable(message),
        Some("SchedulingGated") if condition.status == "False" => {
            let gates = spec.and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
            Scheduling::Gated {
                gates: gates.iter().take(MAX_GATES).map(|g| g.name.clone()).collect(),
                message,
            }
        }
        _ => Scheduling::Waiting,
    }
}

/// A text from outside, shortened for memory and status.
fn bounded(text: &str) -> String {
    short(text, MAX_MESSAGE)
}

/// The termination message of a sandbox as one line without control characters: untrusted code writes it.
fn single_line(text: &str) -> String {
    let plain: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    short(&plain, MAX_TERMINATION_MESSAGE)
}

/// `has_agent`: whether the agent runs the main command.
fn main_state(status: &ContainerStatus, has_agent: bool) -> MainState {
    let state = status.state.as_ref();
    if let Some(t) = state.and_then(|s| s.terminated.as_ref()) {
        let mut exit = Exit {
            reason: t.reason.clone().unwrap_or_default(),
            message: t.message.as_deref().map(single_line).filter(|m| !m.is_empty()),
            code: Some(t.exit_code),
            started_at: t.started_at.as_ref().map(|t| t.0),
            finished_at: t.finished_at.as_ref().map(|t| t.0),
        };
        // The kubelet invents 137 for a container whose end it did not see, and 128 in 1970 for one that never started.
        if exit.failed_to_start() || exit.reason == "ContainerStatusUnknown" {
            (exit.code, exit.started_at, exit.finished_at) = (None, None, None);
        }
        if has_agent && exit.code == Some(255) {
            exit.message = explain_255(&exit);
        }
        return MainState::Terminated(exit);
    }
    match state.and_then(|s| s.running.as_ref()) {
        Some(r) => MainState::Running(r.started_at.as_ref().map(|t| t.0)),
        None => MainState::Waiting,
    }
}

/// What the container runtime reports for an agent that it could not execute is exit code 255 without any message. A
/// main command may exit with 255 as well, but then the agent leaves a message.
fn explain_255(exit: &Exit) -> Option<String> {
    match exit.message.as_deref() {
        Some(MAIN_EXITED_WITH_255) => None,
        None if exit.lasted_at_most(A_MOMENT) => Some(
            "the container's process could not be executed; most likely a variable, an argument, or all of them together are longer than Linux \
             accepts: 131071 bytes for each, about 2 MiB in all; values of Secrets, ConfigMaps and $(VAR) count too"
                .into(),
        ),
        other => other.map(Into::into),
    }
}

fn start_problem(status: &ContainerStatus) -> Option<StartProblem> {
    let is_installer = status.name == INSTALL_AGENT;
    let state = status.state.as_ref()?;
    if let Some(t) = state.terminated.as_ref().filter(|t| is_installer && t.exit_code != 0) {
        return Some(StartProblem {
            reason: reason::AGENT_IMAGE_FAILED,
            message: t.message.as_deref().map(single_line).unwrap_or_default(),
            is_fatal: true,
        });
    }
    if let Some(t) = state
        .terminated
        .as_ref()
        .filter(|t| is_preparation(&status.name) && t.exit_code != 0)
    {
        let message = t
            .message
            .as_deref()
            .map(single_line)
            .unwrap_or_else(|| format!("exit code {}", t.exit_code));
        return Some(StartProblem {
            reason: reason::START_ERROR,
            message: format!("container {}: {message}", status.name),
            is_fatal: true,
        });
    }
    let waiting = state.waiting.as_ref()?;
    let text = waiting.message.as_deref().unwrap_or_default();
    let message = bounded(&format!("container {}: {text}", status.name));
    let (own, is_fatal) = match waiting.reason.as_deref()? {
        "InvalidImageName" => (reason::INVALID_IMAGE_NAME, true),
        "ErrImageNeverPull" => (reason::NEVER_PULL, true),
        "CreateContainerConfigError" => (reason::CONTAINER_CONFIG, violates_non_root(text)),
        "RunContainerError" | "StartError" | "ContainerCannotRun" => (reason::START_ERROR, status.name == MAIN),
        "CreateContainerError" => (reason::START_ERROR, false),
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
            (reason::IMAGE_PULL_ERROR, false)
        }
        _ => return None,
    };
    Some(StartProblem {
        reason: if is_installer { reason::AGENT_IMAGE_FAILED } else { own },
        message,
        is_fatal,
    })
}

/// Whether the kubelet refuses the image's user: nothing that is created later changes that. Every other configuration
/// error names a Secret, a ConfigMap or a key that may be created later, or something that the kubelet has not fetched
/// yet; it tries again. The kubelet returns only text: these are the beginnings of its messages.
fn violates_non_root(message: &str) -> bool {
    message.starts_with("container has runAsNonRoot and image ")
        || message.starts_with("container's runAsUser breaks non-root policy ")
}

/// The pod, with its UID as a precondition.
pub(super) fn target<'a>(namespace: &'a str, pod: &'a PodView) -> Target<'a> {
    Target {
        namespace,
        name: &pod.name,
        uid: &pod.uid,
    }
}
