//! The sandbox controller: observe, decide, tell, act.

mod act;
mod active;
mod after_end;
mod cache;
mod children;
mod context;
mod decide;
mod decision;
mod identity;
mod launch;
mod observe;
mod observed;
mod pod;
mod pod_events;
mod policy;
mod proof;
mod service;
mod status;
mod stop;
mod tell;
#[cfg(test)]
mod tests;
mod verdict;
mod whole;

use jiff::Timestamp;
use kube::runtime::controller::Action as Requeue;
use std::ops::ControlFlow::{Break, Continue};
use std::sync::Arc;
use std::time::Duration;

use self::act::act;
pub(crate) use self::active::ActiveIndex;
pub(crate) use self::cache::{CachedPod, Caches, has_no_pod, slim, slim_policy};
pub(crate) use self::context::Context;
use self::decide::decide;
use self::observe::observe;
pub(crate) use self::proof::is_ours;
use self::tell::tell;
use crate::api::Sandbox;
use crate::operator::error::Error;

/// Shortest time between two reconciles that nothing but the clock causes.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// One reconcile of one sandbox.
pub(crate) async fn reconcile(sandbox: Arc<Sandbox>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    // The garbage collector deletes the children of a deleted sandbox through their owner references.
    if sandbox.metadata.deletion_timestamp.is_some() {
        return Ok(Requeue::await_change());
    }
    // Whole seconds, as the API stores them: a status that is read back must equal the one that was written.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let observed = match observe(sandbox, &ctx, now).await? {
        Continue(observed) => observed,
        Break(pause) => return Ok(Requeue::requeue(pause)),
    };
    let decision = decide(&observed, now);
    tell(&observed, decision.verdict.as_ref(), &ctx, now).await?;
    let retry = act(&observed, &decision.action, &ctx).await?;
    let wake = decision.wake.map(|at| Duration::try_from(at - now).unwrap_or_default());
    let next = [wake, retry].into_iter().flatten().min();
    Ok(next.map_or_else(Requeue::await_change, |pause| {
        Requeue::requeue(pause.max(SHORTEST_PAUSE))
    }))
}
