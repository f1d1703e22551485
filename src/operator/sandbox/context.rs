//! What the reconciles of sandboxes share, and what is known of each sandbox beyond the caches.

use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

use super::active::ActiveIndex;
use super::cache::Caches;
use super::decision::Verdict;
use super::identity::CreatedPod;
use super::pod::StartProblem;
use crate::agent_client::{AgentClient, KeyRing};
use crate::api::SandboxStatus;
use crate::operator::apply::Writer;
use crate::operator::enforcement::NetworkStatus;
use crate::operator::events::Events;
use crate::operator::metrics::Metrics;
use crate::operator::runtime::States;
use crate::operator::session::SessionIndex;
use crate::resources::AgentDelivery;
use crate::resources::addresses::Lists;
use crate::resources::{AgentKey, Settings};

/// What the reconciles of sandboxes share.
pub(crate) struct Context {
    pub writer: Writer,
    pub caches: Caches,
    pub sessions: Arc<SessionIndex>,
    pub active: Arc<ActiveIndex>,
    pub events: Events,
    pub metrics: Metrics,
    pub network: NetworkStatus,
    pub settings: Settings,
    /// The address lists of new sandboxes.
    pub lists: watch::Receiver<Lists>,
    pub agent_delivery: AgentDelivery,
    /// The key of new pods' agents.
    pub agent_key: watch::Receiver<AgentKey>,
    pub agents: AgentClient,
    /// Their private keys, which also sign the pods.
    pub keys: KeyRing,
    pub states: States<ReconcileState>,
    /// When each policy was last restored, by its UID.
    pub policy_restores: States<Option<Instant>>,
}

/// What is known of a sandbox beyond the caches, which may lag behind our own writes.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct ReconcileState {
    /// The newest status that was written, until the cache has it.
    pub written_status: Option<Box<SandboxStatus>>,
    /// The pod that was created for it, until the cached status names it.
    pub created_pod: Option<CreatedPod>,
    /// When it was first reconciled, while it starts.
    pub first_seen: Option<Timestamp>,
    /// When the events of its pod were last read, and the problem that they reported.
    pub polled: Option<Polled>,
    /// When the address of the load balancer of its public ports was last read.
    pub balancer_polled: Option<Timestamp>,
    /// Why its children could not be created, until they are.
    pub launch_failure: Option<LaunchFailure>,
}

/// When the events of a pod were last read, and the problem that they reported.
pub(crate) type Polled = (Timestamp, Option<StartProblem>);

/// Why the children could not be created. Kept in memory, so that the next decision is based on it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LaunchFailure {
    pub verdict: Verdict,
    /// None where trying again cannot help.
    pub retry_at: Option<Timestamp>,
}
