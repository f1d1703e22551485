//! What a decision is based on: plain data.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use std::sync::Arc;

use super::context::LaunchFailure;
use super::identity::PodRecord;
use super::pod::PodView;
use crate::api::conditions::SCHEDULING_GATED;
use crate::api::{Sandbox, SandboxSession, SandboxStatus, State, reason};
use crate::operator::enforcement::NetworkView;
use crate::resources::Effective;
use crate::resources::network_policy::spec_hash;

/// How long after its binding a pod is expected to start: CREATING is not written before, which saves a write per
/// sandbox.
const EXPECTED_START: SignedDuration = SignedDuration::from_secs(2);

/// Everything that a decision depends on, except the clock.
#[derive(Clone)]
pub(crate) struct Observed {
    pub sandbox: Arc<Sandbox>,
    /// The newest status that was written; the cache may not have it yet.
    pub status: SandboxStatus,
    /// The spec after defaults.
    pub effective: Effective,
    pub session: Session,
    /// The pod that was created for the sandbox: if one was, it is never created again.
    pub pod_record: Option<PodRecord>,
    /// When the operator first reconciled it: a start timeout does not count the time before.
    pub first_seen: Timestamp,
    pub pod: Option<PodView>,
    /// When the pod's events are due to be read.
    pub poll_at: Option<Timestamp>,
    pub policy: Option<PolicyView>,
    /// How its ports are reached, where the status does not say it yet.
    pub service: Option<ServiceAddress>,
    /// Whether the namespace already has as many active sandboxes as the operator allows.
    pub namespace_is_full: bool,
    /// Why the children could not be created when it was last tried.
    pub launch_failure: Option<LaunchFailure>,
    /// Whether the cluster enforces the network policy.
    pub network: NetworkView,
    /// The operator's own image, which contains the agent.
    pub agent_image: String,
}

impl Observed {
    /// The end of the lifetime, as the kubelet counts it.
    pub(super) fn end_of_lifetime(&self) -> Option<Timestamp> {
        let started = self.pod.as_ref()?.started_at?;
        Some(started + SignedDuration::from_secs(self.effective.lifetime))
    }

    /// Seconds between SIGTERM and SIGKILL when it is stopped.
    pub(super) fn stop_grace(&self) -> i64 {
        self.sandbox
            .spec
            .stop_grace_period_seconds
            .unwrap_or(self.effective.grace)
    }

    /// Seconds that the kubelet gives the pod's containers between SIGTERM and SIGKILL.
    pub(super) fn pod_grace(&self, pod: &PodView) -> i64 {
        pod.grace.unwrap_or(self.effective.grace)
    }

    /// When the grace period of a stop ends. It began when TERMINATING was written, and may be shortened.
    pub(super) fn end_of_stop(&self, now: Timestamp) -> Timestamp {
        let requested = now + SignedDuration::from_secs(self.stop_grace());
        self.stopping_until()
            .map_or(requested, |written| written.min(requested))
    }

    /// The end of that grace period as it was last written. None before the stop began.
    pub(super) fn stopping_until(&self) -> Option<Timestamp> {
        let is_stop = matches!(
            self.status.reason.as_deref(),
            Some(reason::STOPPED | reason::SESSION_CLOSED)
        );
        let began = self.status.state == State::Terminating && is_stop;
        self.status.expires_at.as_ref().filter(|_| began).map(|t| t.0)
    }

    /// When it must be RUNNING. The time starts anew when the pod's scheduling gates are removed.
    pub(super) fn end_of_start(&self, now: Timestamp) -> Option<Timestamp> {
        let created = self.sandbox.metadata.creation_timestamp.as_ref()?.0;
        let start = created
            .max(self.first_seen)
            .max(self.ungated_at(now).unwrap_or(created));
        Some(start + SignedDuration::from_secs(self.effective.start_timeout))
    }

    /// When the scheduling gates of the pod were removed, if it had any. A removal that is not in the status yet
    /// happened just now.
    fn ungated_at(&self, now: Timestamp) -> Option<Timestamp> {
        let gated = self.status.conditions.iter().find(|c| c.type_ == SCHEDULING_GATED)?;
        Some(if gated.status == "True" {
            now
        } else {
            gated.last_transition_time.0
        })
    }

    /// Until when a start that goes well is not written: most sandboxes run before.
    pub(super) fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        let until = self.pod.as_ref()?.bound_at? + EXPECTED_START;
        (now < until).then_some(until)
    }
}

/// The session of a sandbox.
#[derive(Clone, Debug)]
pub(crate) enum Session {
    /// The sandbox names no session, or a session already owns it. The owner never changes.
    Settled(Option<Arc<SandboxSession>>),
    /// The session that it names does not exist.
    Missing,
    /// The session that it names does not own it yet.
    Joining {
        session: Arc<SandboxSession>,
        /// Whether `maxSandboxes` admits one more.
        has_room: bool,
    },
}

impl Session {
    pub(super) fn get(&self) -> Option<&SandboxSession> {
        match self {
            Session::Settled(session) => session.as_deref(),
            Session::Joining { session, .. } => Some(session),
            Session::Missing => None,
        }
    }
}

/// The fields of a network policy that decisions depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyView {
    pub uid: String,
    /// Whether its spec is the one that we wrote.
    pub is_unmodified: bool,
    pub is_deleting: bool,
}

impl PolicyView {
    pub(super) fn new(policy: &NetworkPolicy) -> PolicyView {
        PolicyView {
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            is_unmodified: spec_hash(policy).is_some(),
            is_deleting: policy.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// How the ports of a sandbox are reached.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ServiceAddress {
    pub name: String,
    pub urls: Vec<String>,
}
