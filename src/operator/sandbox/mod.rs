//! The sandbox controller: observe, decide, tell, act.

pub mod decide;
mod ends;
mod launch;
pub mod observed;
pub mod pod_events;
pub mod status;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::controller::Action as Next;
use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::decide::{Action, Decision, after_end, decide, waiting};
use self::launch::{Outcome, launch, restore_policy, unpublish};
use self::observed::{Main, Observed, PodView, PolicyView, Session};
use super::apply::Target;
use super::caches::{CachedPod, reference};
use super::context::{Context, jitter};
use super::error::Error;
use super::session_index::owner_uid;
use crate::agent_client;
use crate::api::{Sandbox, SandboxSession, SandboxStatus, State};
use crate::resources::{Effective, names};

/// Pause before a pod that a quota refused is tried again.
const QUOTA_RETRY: Duration = Duration::from_secs(5);

/// How long a pod that was made may be missing in the cache before it is asked for: under load a live read for each makes the load worse.
const WATCH_LAG: Duration = Duration::from_secs(3);

/// One look at one sandbox.
pub async fn reconcile(sandbox: Arc<Sandbox>, ctx: Arc<Context>) -> Result<Next, Error> {
    // Being deleted: the garbage collector does the rest through owner references.
    if sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let uid = sandbox.uid().unwrap_or_default();
    let note = ctx.memory.recall(&uid);
    let cached = sandbox.status.clone().unwrap_or_default();
    // Whole seconds, as the API keeps them: what is read back must equal what was written.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    // Its first telling, too, since an operator that came later did not see it before.
    let seen = [note.seen, status::first_told(&cached)].into_iter().flatten().fold(now, Timestamp::min);
    ctx.memory.note(&uid, |n| {
        // What the cache has need not be remembered.
        n.status = n.status.take().filter(|written| **written != cached);
        n.made = n.made.filter(|_| cached.pod_name.is_none());
        n.seen = Some(seen).filter(|_| starts(cached.state));
    });
    let status = note.status.map_or(cached, |written| *written);
    let launched = note.made.is_some() || status.pod_name.is_some();
    let (session, defaults) = session_of(&sandbox, &ctx);
    let mut effective = Effective::new(&sandbox, defaults.as_deref(), &ctx.settings);
    // It may be lowered; a session's defaults that changed later, or a field that was added, do not raise it.
    if let Some(told) = status.max_lifetime_seconds.filter(|_| launched) {
        let own = sandbox.spec.workload.lifecycle.max_lifetime_seconds;
        effective.lifetime = own.map_or(told, |own| own.min(told));
    }
    let name = names::child(&sandbox);
    let namespace = sandbox.namespace().unwrap_or_default();
    let mut observed = Observed {
        sandbox: &sandbox,
        status: &status,
        effective: &effective,
        session: match &session {
            Joined::Settled => Session::Settled(defaults.as_deref()),
            Joined::Missing => Session::Missing,
            Joined::Waiting(session, room) => Session::Joining { session, room: *room },
        },
        launched,
        seen,
        pod: None,
        look_again: None,
        policy: ctx
            .caches
            .policies
            .get(&reference(&namespace, &name))
            .filter(|p| names::is_child(&p.metadata, &sandbox))
            .map(|p| PolicyView::new(&p)),
        agent_image: &ctx.settings.agent.image,
    };
    observed.pod = match pod_of(&observed, &ctx, &name, note.made).await? {
        Continue(pod) => pod,
        Break(left) => return Ok(Next::requeue(left)),
    };
    if status.state.is_final() {
        unpublish(&observed, &ctx).await?;
        let (action, wake) = after_end(&observed, now);
        act(&observed, &action, &ctx).await?;
        return Ok(next(wake, now));
    }
    pod_events::complete(&mut observed, note.asked, &ctx, now).await;
    let mut decision = decide(&observed, now);
    if decision.action == Action::RestorePolicy {
        // Without it the pod is behind the standing deny-all: that is no reason to fail it.
        if let Outcome::Refused(verdict) | Outcome::Later(verdict) = restore_policy(&observed, &ctx).await? {
            ctx.events.warn(sandbox.as_ref(), verdict.reason, &verdict.message);
            decision.wake = Some(now + jiff::SignedDuration::from_secs(30));
        }
    }
    if decision.action == Action::Launch {
        decision = match launch(&observed, &ctx).await? {
            Outcome::Launched => {
                ctx.memory.note(&uid, |n| n.made = Some(Instant::now()));
                decision
            }
            Outcome::Refused(verdict) => Decision {
                action: Action::None,
                verdict,
                wake: None,
            },
            Outcome::Later(verdict) => {
                let again = now + jiff::SignedDuration::try_from(QUOTA_RETRY.mul_f64(0.8 + 0.4 * jitter())).unwrap_or_default();
                let decision = waiting(&observed, now, verdict);
                Decision {
                    wake: decision.wake.map(|w| w.min(again)),
                    ..decision
                }
            }
        };
    }
    tell(&observed, &decision, &ctx, now).await?;
    act(&observed, &decision.action, &ctx).await?;
    if decision.verdict.state.is_final() {
        // The record's time begins, and a pod that never ran goes.
        return Ok(Next::requeue(Duration::from_millis(50)));
    }
    Ok(next(decision.wake, now))
}

/// Whether its time to start still runs.
fn starts(state: State) -> bool {
    matches!(state, State::Pending | State::Creating)
}

fn next(wake: Option<Timestamp>, now: Timestamp) -> Next {
    match wake {
        Some(at) => Next::requeue(Duration::try_from(at - now).ok().unwrap_or_default().max(Duration::from_millis(100))),
        None => Next::await_change(),
    }
}

enum Joined {
    Settled,
    Missing,
    Waiting(Arc<SandboxSession>, bool),
}

fn session_of(sandbox: &Sandbox, ctx: &Context) -> (Joined, Option<Arc<SandboxSession>>) {
    let Some(name) = &sandbox.spec.session_name else {
        return (Joined::Settled, None);
    };
    let found = ctx.caches.sessions.get(&reference(&sandbox.namespace().unwrap_or_default(), name));
    if let Some(owner) = owner_uid(sandbox) {
        return (Joined::Settled, found.filter(|s| s.uid().as_deref() == Some(owner)));
    }
    match found.filter(|s| s.metadata.deletion_timestamp.is_none()) {
        None => (Joined::Missing, None),
        Some(session) => {
            let ended = sandbox.status.as_ref().is_some_and(|s| s.state.is_final());
            let room = ended || ctx.sessions.admit(sandbox, &session);
            (Joined::Waiting(session.clone(), room), Some(session))
        }
    }
}

/// From the cache. One that was `made` and is not there is looked for live: a cache that lags must not fail a sandbox. But when it was made
/// just now, the watch has the time left that is told to show it.
async fn pod_of(o: &Observed<'_>, ctx: &Context, name: &str, made: Option<Instant>) -> Result<ControlFlow<Duration, Option<PodView>>, Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    if let Some(pod) = ctx.caches.pods.get(&reference::<CachedPod>(&namespace, name)) {
        return Ok(Continue(names::is_child(&pod.metadata, o.sandbox).then(|| pod.view.clone())));
    }
    if !o.launched || o.status.state.is_final() {
        return Ok(Continue(None));
    }
    if let Some(left) = made.and_then(|at| WATCH_LAG.checked_sub(at.elapsed())) {
        return Ok(Break(left));
    }
    let live: Option<Pod> = ctx.writer.get("Pod", &namespace, name).await?;
    let ours = live.filter(|p| names::is_child(&p.metadata, o.sandbox));
    Ok(Continue(ours.map(|p| PodView::new(&p))))
}

async fn tell(o: &Observed<'_>, decision: &Decision, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let new = status::status(o, &decision.verdict, now);
    if !status::worth_writing(o, &new, now) {
        return Ok(());
    }
    ctx.writer.sandbox_status(o.sandbox, o.status, &new).await?;
    report(o, &new, ctx, now);
    ctx.memory.note(&o.sandbox.uid().unwrap_or_default(), |n| n.status = Some(Box::new(new)));
    Ok(())
}

/// Events for trouble only: a normal life makes none.
fn report(o: &Observed, new: &SandboxStatus, ctx: &Context, now: Timestamp) {
    let reason = new.reason.as_deref().unwrap_or_default();
    if new.state == State::Running
        && o.status.state != State::Running
        && let Some(created) = &o.sandbox.metadata.creation_timestamp
    {
        ctx.metrics
            .running_after(Duration::try_from(now.duration_since(created.0)).unwrap_or_default());
    }
    let waits = matches!(new.state, State::Pending | State::Creating) && new.message.is_some();
    if o.status.reason.as_deref() != Some(reason) && (new.state == State::Failed || waits) {
        ctx.events.warn(o.sandbox, reason, new.message.as_deref().unwrap_or_default());
    }
}

async fn act(o: &Observed<'_>, action: &Action, ctx: &Context) -> Result<(), Error> {
    let namespace = o.sandbox.namespace().unwrap_or_default();
    match action {
        Action::None | Action::Launch | Action::RestorePolicy => Ok(()),
        Action::Join => {
            let Session::Joining { session, .. } = o.session else {
                return Ok(());
            };
            let mut meta = o.sandbox.metadata.clone();
            meta.owner_references.get_or_insert_default().push(names::session_owner(session));
            ctx.writer.set_owners::<Sandbox>("Sandbox", &meta).await
        }
        Action::NamePolicy(uid) => {
            let Some(pod) = ctx.caches.pods.get(&reference::<CachedPod>(&namespace, &names::child(o.sandbox))) else {
                return Ok(());
            };
            let mut meta = pod.metadata.clone();
            names::set_policy_owner(&mut meta, uid);
            ctx.writer.set_owners::<Pod>("Pod", &meta).await
        }
        Action::AskToStop(pod, grace) => {
            if let Err(error) = ask_to_stop(pod, *grace, ctx).await {
                // The kubelet is asked in its place; it knows the pod's own grace only.
                tracing::info!(pod = pod.name, namespace, error, "the agent cannot be asked to stop");
                ctx.writer.pod_deadline(target(&namespace, pod), 1).await?;
            }
            Ok(())
        }
        Action::SetDeadline(pod, seconds) => ctx.writer.pod_deadline(target(&namespace, pod), *seconds).await,
        Action::DeletePod(pod) => ctx.writer.delete::<Pod>("Pod", target(&namespace, pod)).await,
        Action::Delete => ctx.writer.delete::<Sandbox>("Sandbox", (&o.sandbox.metadata).into()).await,
    }
}

async fn ask_to_stop(pod: &PodView, grace: i64, ctx: &Context) -> Result<(), String> {
    let agent = agent_client::Target {
        pod_uid: pod.uid.clone(),
        ip: pod.ip.as_deref().unwrap_or_default().parse().map_err(|_| "no address".to_owned())?,
        port: ctx.settings.agent.port,
        key_id: pod.agent_key.clone().unwrap_or_default(),
        started_at: match pod.main {
            Main::Running(since) => since,
            _ => None,
        },
    };
    ctx.agents.stop(&agent, u32::try_from(grace).unwrap_or_default()).await
}

fn target<'a>(namespace: &'a str, pod: &'a PodView) -> Target<'a> {
    Target {
        namespace,
        name: &pod.name,
        uid: &pod.uid,
    }
}
