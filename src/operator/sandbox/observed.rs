//! What is known of one sandbox at one moment: plain data, taken from the caches.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::api::{ANNOTATION_AGENT_KEY, Sandbox, SandboxSession, SandboxStatus, State, reason};
use crate::resources::network_policy::spec_hash;
use crate::resources::pod_containers::{INSTALL_AGENT, MAIN};
use crate::resources::{Effective, names};
use crate::text::short;

/// Bytes of what a main command leaves in `/dev/termination-log`.
const MAX_SAID: usize = 1024;

/// How long after its binding a pod is expected to run. A write saved for each sandbox, and RUNNING need not wait behind it.
const QUIET: SignedDuration = SignedDuration::from_secs(2);

/// Everything that a decision depends on, but the clock.
pub struct Observed<'a> {
    /// The sandbox.
    pub sandbox: &'a Sandbox,
    /// Its status: the newest that was written, which the cache may not have yet.
    pub status: &'a SandboxStatus,
    /// Its fields after defaults.
    pub effective: &'a Effective,
    /// Its session.
    pub session: Session<'a>,
    /// Whether a pod was made for it: then a missing one is a deleted one.
    pub launched: bool,
    /// When it was first looked at: an operator that was away or busy must not fail what it did not try.
    pub seen: Timestamp,
    /// Its pod.
    pub pod: Option<PodView>,
    /// When the pod's events are to be asked for.
    pub look_again: Option<Timestamp>,
    /// Its network policy.
    pub policy: Option<PolicyView>,
    /// The operator's own image, which holds the agent.
    pub agent_image: &'a str,
}

impl Observed<'_> {
    /// The end of the lifetime, as the kubelet counts it.
    pub fn end_of_lifetime(&self) -> Option<Timestamp> {
        let started = self.pod.as_ref()?.started?;
        Some(started + SignedDuration::from_secs(self.effective.lifetime))
    }

    /// Seconds between SIGTERM and SIGKILL when it is stopped.
    pub fn stop_grace(&self) -> i64 {
        self.sandbox.spec.stop_grace_period_seconds.unwrap_or(self.effective.grace)
    }

    /// When the grace of a stop is over: it began when TERMINATING was told, and may be shortened.
    pub fn end_of_stop(&self, now: Timestamp) -> Timestamp {
        let asked = now + SignedDuration::from_secs(self.stop_grace());
        self.stopping_until().map_or(asked, |told| told.min(asked))
    }

    /// What was told of it; none before the stop began.
    pub fn stopping_until(&self) -> Option<Timestamp> {
        let began = self.status.state == State::Terminating;
        self.status.expires_at.as_ref().filter(|_| began).map(|t| t.0)
    }

    /// When it must be RUNNING.
    pub fn end_of_start(&self) -> Option<Timestamp> {
        let created = self.sandbox.metadata.creation_timestamp.as_ref()?.0;
        Some(created.max(self.seen) + SignedDuration::from_secs(self.effective.start_timeout))
    }

    /// Until when a start that goes well is not worth telling: most are over before.
    pub fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.pod.as_ref()?.bound? + QUIET;
        (now < until).then_some(until)
    }
}

/// The session of a sandbox.
#[derive(Clone, Copy, Debug)]
pub enum Session<'a> {
    /// It names none, or already belongs to one: what owns it does not change any more.
    Settled(Option<&'a SandboxSession>),
    /// It names one that does not exist.
    Missing,
    /// It names one that it does not belong to yet.
    Joining {
        /// The session.
        session: &'a SandboxSession,
        /// Whether there is room for one more.
        room: bool,
    },
}

/// What matters of a network policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyView {
    /// UID.
    pub uid: String,
    /// Its spec is the one that we made.
    pub as_made: bool,
    /// Being deleted.
    pub deleting: bool,
}

impl PolicyView {
    /// Reads a cached policy.
    pub fn new(policy: &NetworkPolicy) -> PolicyView {
        PolicyView {
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            as_made: spec_hash(policy).is_some(),
            deleting: policy.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// What matters of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodView {
    /// UID, for preconditions.
    pub uid: String,
    /// Name.
    pub name: String,
    /// UID of the policy that is its owner.
    pub policy: Option<String>,
    /// Address.
    pub ip: Option<String>,
    /// Node it is bound to.
    pub node: Option<String>,
    /// When it was bound.
    pub bound: Option<Timestamp>,
    /// `Succeeded` or `Failed`.
    pub ended: bool,
    /// Being deleted.
    pub deleting: bool,
    /// `status.reason`: DeadlineExceeded, Evicted, …
    pub reason: Option<String>,
    /// `status.message`.
    pub message: Option<String>,
    /// When the kubelet took it.
    pub started: Option<Timestamp>,
    /// `spec.activeDeadlineSeconds`.
    pub deadline: Option<i64>,
    /// Reason of its `DisruptionTarget` condition, as ours.
    pub disruption: Option<&'static str>,
    /// Why the scheduler found no node.
    pub unschedulable: Option<String>,
    /// The key by which its agent is called; none where the image's own entrypoint runs in the agent's place.
    pub agent_key: Option<String>,
    /// The main container.
    pub main: Main,
    /// What keeps a container from starting: reason, text, and whether it is final.
    pub trouble: Option<Trouble>,
}

/// The main container.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Main {
    /// Not started.
    #[default]
    Waiting,
    /// Runs since.
    Running(Option<Timestamp>),
    /// Ended.
    Ended(Exit),
}

/// How the main container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// The kubelet's word for it.
    pub reason: String,
    /// The kubelet's text.
    pub message: Option<String>,
    /// Exit code; none where the kubelet made one up.
    pub code: Option<i32>,
    /// When it started; none where that is made up.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

/// What keeps a container from starting.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// One of our reasons.
    pub reason: &'static str,
    /// The kubelet's text.
    pub message: String,
    /// Whether waiting cannot help.
    pub fatal: bool,
}

impl PodView {
    /// Whether there is an agent to call.
    pub fn has_agent(&self) -> bool {
        self.agent_key.is_some() && self.ip.is_some() && matches!(self.main, Main::Running(_))
    }

    /// Reads a pod.
    pub fn new(pod: &Pod) -> PodView {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let conditions = status.conditions.unwrap_or_default();
        let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind);
        let statuses: Vec<&ContainerStatus> = status
            .init_container_statuses
            .iter()
            .flatten()
            .chain(status.container_statuses.iter().flatten())
            .collect();
        PodView {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            policy: names::policy_owner(&pod.metadata).map(Into::into),
            ip: status.pod_ip.filter(|ip| !ip.is_empty()),
            node: spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()),
            bound: of("PodScheduled")
                .filter(|c| c.status == "True")
                .and_then(|c| Some(c.last_transition_time.as_ref()?.0)),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            reason: status.reason,
            message: status.message,
            started: status.start_time.map(|t| t.0),
            deadline: spec.and_then(|s| s.active_deadline_seconds),
            disruption: of("DisruptionTarget").filter(|c| c.status == "True").map(disruption),
            unschedulable: of("PodScheduled")
                .filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
                .map(|c| c.message.clone().unwrap_or_default()),
            agent_key: pod.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_AGENT_KEY).cloned()),
            main: statuses.iter().find(|s| s.name == MAIN).map(|s| main(s)).unwrap_or_default(),
            trouble: statuses.iter().find_map(|s| trouble(s)),
        }
    }
}

fn disruption(condition: &PodCondition) -> &'static str {
    match condition.reason.as_deref() {
        Some("PreemptionByScheduler") => reason::PREEMPTED,
        Some("EvictionByEvictionAPI" | "TerminationByKubelet") => reason::EVICTED,
        Some("DeletionByTaintManager" | "DeletionByPodGC") => reason::NODE_LOST,
        _ => reason::POD_DELETED,
    }
}

/// What a sandbox says of itself, made fit to be shown: in one line, without control characters.
fn in_a_line(text: &str) -> String {
    let plain: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    short(&plain, MAX_SAID)
}

fn main(status: &ContainerStatus) -> Main {
    let state = status.state.as_ref();
    if let Some(t) = state.and_then(|s| s.terminated.as_ref()) {
        let why = t.reason.clone().unwrap_or_default();
        // The kubelet makes up 137 for a container whose end it did not see, and 128 in 1970 for one that never started.
        let real = !matches!(why.as_str(), "ContainerStatusUnknown" | "StartError" | "ContainerCannotRun");
        return Main::Ended(Exit {
            code: real.then_some(t.exit_code),
            started: t.started_at.as_ref().map(|t| t.0).filter(|_| real),
            finished: t.finished_at.as_ref().map(|t| t.0).filter(|_| real),
            message: t.message.as_deref().map(in_a_line).filter(|m| !m.is_empty()),
            reason: why,
        });
    }
    match state.and_then(|s| s.running.as_ref()) {
        Some(r) => Main::Running(r.started_at.as_ref().map(|t| t.0)),
        None => Main::Waiting,
    }
}

fn trouble(status: &ContainerStatus) -> Option<Trouble> {
    let agent = status.name == INSTALL_AGENT;
    let state = status.state.as_ref()?;
    if let Some(t) = state.terminated.as_ref().filter(|t| agent && t.exit_code != 0) {
        return Some(Trouble {
            reason: reason::AGENT_IMAGE_FAILED,
            message: t.message.clone().unwrap_or_default(),
            fatal: true,
        });
    }
    let waiting = state.waiting.as_ref()?;
    let message = format!("container {}: {}", status.name, waiting.message.clone().unwrap_or_default());
    let (own, fatal) = match waiting.reason.as_deref()? {
        "InvalidImageName" => (reason::INVALID_IMAGE_NAME, true),
        "ErrImageNeverPull" => (reason::NEVER_PULL, true),
        // A kubelet under load says this of a Secret that it has not fetched yet.
        "CreateContainerConfigError" => (reason::CONTAINER_CONFIG, !message.contains("failed to sync")),
        "RunContainerError" | "StartError" | "ContainerCannotRun" => (reason::START_ERROR, status.name == MAIN),
        "CreateContainerError" => (reason::START_ERROR, false),
        "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => (reason::IMAGE_PULL_ERROR, false),
        _ => return None,
    };
    Some(Trouble {
        reason: if agent { reason::AGENT_IMAGE_FAILED } else { own },
        message,
        fatal,
    })
}
