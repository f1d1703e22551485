//! Observe: what is known of one sandbox at one moment, from the caches and, where they may lag, from the API server.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::{CachedPod, reference};
use super::context::Context;
use super::identity::PodRecord;
use super::observed::{Observed, PolicyView, Session};
use super::pod::PodView;
use super::{pod_events, proof, service, status};
use crate::api::{ANNOTATION_HOLD, Sandbox, SandboxSession, SandboxStatus, State};
use crate::operator::error::Error;
use crate::resources::{Effective, names};

/// How long the cache may lack a pod that was created before it is read live. Under load a live read per sandbox makes
/// the load worse.
const WATCH_LAG: Duration = Duration::from_secs(3);

/// Collects what is known of a sandbox. Breaks with a pause while its new pod has yet to arrive in the cache.
pub(super) async fn observe(
    sandbox: Arc<Sandbox>,
    ctx: &Context,
    now: Timestamp,
) -> Result<ControlFlow<Duration, Observed>, Error> {
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
    let is_unstarted = pod_record.is_none() && !status.state.is_final();
    let session = session_of(&sandbox, &status, pod_record.is_some(), ctx);
    let may_start = is_unstarted && matches!(session, Session::Settled(_)) && !annotations_hold(&sandbox);
    let max = usize::try_from(ctx.settings.max_active_per_namespace).unwrap_or(usize::MAX);
    let mut observed = Observed {
        namespace_is_full: may_start && !ctx.active.admit(&sandbox, max, || is_cached(&sandbox, ctx)),
        effective: effective(&sandbox, &status, session.get(), pod_record.is_some(), ctx),
        policy: policy_of(&sandbox, ctx),
        launch_failure: state.launch_failure,
        network: ctx.network.view(),
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
        observed.service = service::observe(&mut observed, state.balancer_polled, ctx, now).await?;
        pod_events::complete(&mut observed, state.polled, ctx, now).await;
    }
    Ok(Continue(observed))
}

pub(super) fn effective(
    sandbox: &Sandbox,
    status: &SandboxStatus,
    session: Option<&SandboxSession>,
    has_pod: bool,
    ctx: &Context,
) -> Effective {
    let mut effective = Effective::new(sandbox, session, &ctx.settings);
    // The lifetime may be lowered. Neither later defaults of the session nor a field that is added raise it.
    if let Some(written) = status.max_lifetime_seconds.filter(|_| has_pod) {
        let own = sandbox.spec.workload.lifecycle.max_lifetime_seconds;
        effective.lifetime = own.map_or(written, |own| own.min(written));
    }
    effective
}

fn annotations_hold(sandbox: &Sandbox) -> bool {
    sandbox.annotations().contains_key(ANNOTATION_HOLD)
}

fn is_cached(sandbox: &Sandbox, ctx: &Context) -> bool {
    let reference = reference(&sandbox.namespace().unwrap_or_default(), &sandbox.name_any());
    let cached = ctx.caches.sandboxes.get(&reference);
    cached.is_some_and(|cached| cached.metadata.uid == sandbox.metadata.uid)
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
    let found = ctx
        .caches
        .sessions
        .get(&reference(&sandbox.namespace().unwrap_or_default(), name));
    let is_of = |session: &SandboxSession, uid: &Option<String>| uid.is_some() && session.uid() == *uid;
    // An owner reference alone proves nothing: the sandbox may have been created with it.
    let reserved = ctx.sessions.session_of(&sandbox.uid().unwrap_or_default());
    let reserved = reserved.filter(|uid| has_pod || names::has_owner(&sandbox.metadata, uid));
    // A sandbox that outlived its session does not join a later one of the same name.
    let joined = status.session_uid.clone().or(reserved);
    if joined.is_some() || has_pod {
        return Session::Settled(found.filter(|s| is_of(s, &joined)));
    }
    let Some(session) = found.filter(|s| s.metadata.deletion_timestamp.is_none()) else {
        return Session::Missing;
    };
    let has_room = status.state.is_final() || ctx.sessions.admit(sandbox, &session);
    let is_owner = names::has_owner(&sandbox.metadata, &session.uid().unwrap_or_default());
    match has_room && is_owner {
        true => Session::Settled(Some(session)),
        false => Session::Joining { session, has_room },
    }
}

/// The pod from the cache. One that was created and is not in the cache is read live, since a cache that lags must not
/// fail a sandbox; but right after its creation the watch gets some time to deliver it.
async fn pod_of(
    o: &Observed,
    ctx: &Context,
    created_at: Option<Instant>,
) -> Result<ControlFlow<Duration, Option<PodView>>, Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    let name = o
        .pod_record
        .as_ref()
        .map_or_else(|| names::child(&o.sandbox), |record| record.name.clone());
    let is_ours = |meta: &ObjectMeta| match &o.pod_record {
        Some(record) => record.is(meta) && names::is_child(meta, &o.sandbox),
        // This process did not create it, and no status names it: another replica or anyone else may have created it.
        None => proof::is_ours(meta, &o.sandbox, &ctx.keys),
    };
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
    Ok(Continue(
        live.filter(|p| is_ours(&p.metadata)).map(|p| PodView::new(&p)),
    ))
}
