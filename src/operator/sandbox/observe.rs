//! Observe: what is known of one sandbox at one moment, from the caches and, where they may lag, from the API server.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::{CachedPod, reference};
use super::context::Context;
use super::identity::PodRecord;
use super::launch::LaunchFailure;
use super::pod::PodView;
use super::service::ServiceAddress;
use super::{pod_events, service, status};
use crate::api::conditions::SCHEDULING_GATED;
use crate::api::{Sandbox, SandboxSession, SandboxStatus, State, reason};
use crate::operator::error::Error;
use crate::operator::session::session_uid;
use crate::resources::network_policy::spec_hash;
use crate::resources::{Effective, names};

/// How long the cache may lack a pod that was created before it is read live. Under load a live read per sandbox makes the load worse.
const WATCH_LAG: Duration = Duration::from_secs(3);

/// How long after its binding a pod is expected to start: CREATING is not written before, which saves a write per sandbox.
const EXPECTED_START: SignedDuration = SignedDuration::from_secs(2);

/// Everything that a decision depends on, except the clock.
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
    /// Why the children could not be created when it was last tried.
    pub launch_failure: Option<LaunchFailure>,
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
        self.sandbox.spec.stop_grace_period_seconds.unwrap_or(self.effective.grace)
    }

    /// Seconds that the kubelet gives the pod's containers between SIGTERM and SIGKILL.
    pub(super) fn pod_grace(&self, pod: &PodView) -> i64 {
        pod.grace.unwrap_or(self.effective.grace)
    }

    /// When the grace period of a stop ends. It began when TERMINATING was written, and may be shortened.
    pub(super) fn end_of_stop(&self, now: Timestamp) -> Timestamp {
        let requested = now + SignedDuration::from_secs(self.stop_grace());
        self.stopping_until().map_or(requested, |written| written.min(requested))
    }

    /// The end of that grace period as it was last written. None before the stop began.
    pub(super) fn stopping_until(&self) -> Option<Timestamp> {
        let is_stop = matches!(self.status.reason.as_deref(), Some(reason::STOPPED | reason::SESSION_CLOSED));
        let began = self.status.state == State::Terminating && is_stop;
        self.status.expires_at.as_ref().filter(|_| began).map(|t| t.0)
    }

    /// When it must be RUNNING. The time starts anew when the pod's scheduling gates are removed.
    pub(super) fn end_of_start(&self, now: Timestamp) -> Option<Timestamp> {
        let created = self.sandbox.metadata.creation_timestamp.as_ref()?.0;
        let start = created.max(self.first_seen).max(self.ungated_at(now).unwrap_or(created));
        Some(start + SignedDuration::from_secs(self.effective.start_timeout))
    }

    /// When the scheduling gates of the pod were removed, if it had any. A removal that is not in the status yet happened just now.
    fn ungated_at(&self, now: Timestamp) -> Option<Timestamp> {
        let gated = self.status.conditions.iter().find(|c| c.type_ == SCHEDULING_GATED)?;
        Some(if gated.status == "True" { now } else { gated.last_transition_time.0 })
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
    fn new(policy: &NetworkPolicy) -> PolicyView {
        PolicyView {
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            is_unmodified: spec_hash(policy).is_some(),
            is_deleting: policy.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// Collects what is known of a sandbox. Breaks with a pause while its new pod has yet to arrive in the cache.
pub(super) async fn observe(sandbox: Arc<Sandbox>, ctx: &Context, now: Timestamp) -> Result<ControlFlow<Duration, Observed>, Error> {
    let uid = sandbox.uid().unwrap_or_default();
    let state = ctx.states.get(&uid);
    let cached = sandbox.status.clone().unwrap_or_default();
    // The first write counts too: this operator may have started later.
    let first_seen = [state.first_seen, status::first_written(&cached)]
        .into_iter()
        .flatten()
        .fold(now, Timestamp::min);
    ctx.states.update(&uid, |s| {
        // What the cache has need not be kept here.
        s.written_status = s.written_status.take().filter(|written| **written != cached);
        s.created_pod = s.created_pod.take().filter(|_| cached.pod_name.is_none());
        s.launch_failure = s.launch_failure.take().filter(|_| !cached.state.is_final());
        s.first_seen = Some(first_seen).filter(|_| matches!(cached.state, State::Pending | State::Creating));
    });
    let status = state.written_status.map_or(cached, |written| *written);
    let pod_record = PodRecord::find(&sandbox, &status, state.created_pod.as_ref());
    let session = session_of(&sandbox, &status, pod_record.is_some(), ctx);
    let mut observed = Observed {
        effective: effective(&sandbox, &status, session.get(), pod_record.is_some(), ctx),
        policy: policy_of(&sandbox, ctx),
        launch_failure: state.launch_failure,
        agent_image: ctx.settings.agent.image.clone(),
        sandbox,
        status,
        session,
        pod_record,
        first_seen,
        pod: None,
        service: None,
        poll_at: None,
    };
    observed.pod = match pod_of(&observed, ctx, state.created_pod.map(|created| created.at)).await? {
        Continue(pod) => pod,
        Break(pause) => return Ok(Break(pause)),
    };
    if !observed.status.state.is_final() {
        observed.service = service::observe(&observed, ctx).await?;
        pod_events::complete(&mut observed, state.polled, ctx, now).await;
    }
    Ok(Continue(observed))
}

fn effective(sandbox: &Sandbox, status: &SandboxStatus, session: Option<&SandboxSession>, has_pod: bool, ctx: &Context) -> Effective {
    let mut effective = Effective::new(sandbox, session, &ctx.settings);
    // The lifetime may be lowered. Neither later defaults of the session nor a field that is added raise it.
    if let Some(written) = status.max_lifetime_seconds.filter(|_| has_pod) {
        let own = sandbox.spec.workload.lifecycle.max_lifetime_seconds;
        effective.lifetime = own.map_or(written, |own| own.min(written));
    }
    effective
}

fn policy_of(sandbox: &Sandbox, ctx: &Context) -> Option<PolicyView> {
    let reference = reference(&sandbox.namespace().unwrap_or_default(), &names::child(sandbox));
    let policy = ctx.caches.policies.get(&reference)?;
    names::is_child(&policy.metadata, sandbox).then(|| PolicyView::new(&policy))
}

fn session_of(sandbox: &Sandbox, status: &SandboxStatus, has_pod: bool, ctx: &Context) -> Session {
    let Some(name) = &sandbox.spec.session_name else {
        return Session::Settled(None);
    };
    let found = ctx.caches.sessions.get(&reference(&sandbox.namespace().unwrap_or_default(), name));
    // A sandbox that outlived its session does not join a later one of the same name.
    let owner = session_uid(sandbox).or(status.session_uid.as_deref());
    if owner.is_some() || has_pod {
        return Session::Settled(found.filter(|s| owner.is_some() && s.uid().as_deref() == owner));
    }
    match found.filter(|s| s.metadata.deletion_timestamp.is_none()) {
        None => Session::Missing,
        Some(session) => {
            let has_room = status.state.is_final() || ctx.sessions.admit(sandbox, &session);
            Session::Joining { session, has_room }
        }
    }
}

/// The pod from the cache. One that was created and is not in the cache is read live, since a cache that lags must not fail a sandbox; but
/// right after its creation the watch gets some time to deliver it.
async fn pod_of(o: &Observed, ctx: &Context, created_at: Option<Instant>) -> Result<ControlFlow<Duration, Option<PodView>>, Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let name = o
        .pod_record
        .as_ref()
        .map_or_else(|| names::child(&o.sandbox), |record| record.name.clone());
    let is_ours = |meta: &ObjectMeta| names::is_child(meta, &o.sandbox) && o.pod_record.as_ref().is_none_or(|record| record.is(meta));
    if let Some(pod) = ctx.caches.pods.get(&reference::<CachedPod>(&namespace, &name)) {
        return Ok(Continue(is_ours(&pod.metadata).then(|| pod.view.clone())));
    }
    if o.pod_record.is_none() || o.status.state.is_final() {
        return Ok(Continue(None));
    }
    if let Some(left) = created_at.and_then(|at| WATCH_LAG.checked_sub(at.elapsed())) {
        return Ok(Break(left));
    }
    let live: Option<Pod> = ctx.writer.get("Pod", &namespace, &name).await?;
    Ok(Continue(live.filter(|p| is_ours(&p.metadata)).map(|p| PodView::new(&p))))
}
