//! The controller of sessions: counts by state, and the end of the lifetime.

mod index;
mod status;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action as Requeue;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use self::index::SessionIndex;

use super::apply::Writer;
use super::error::Error;
use super::runtime::{Queue, States};
use crate::api::{Sandbox, SandboxSession};

/// Least time between two writes of one session's counts.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// What the reconciles of sessions share.
pub(crate) struct Context {
    pub writer: Writer,
    pub index: Arc<SessionIndex>,
    pub sandboxes: Queue<Sandbox>,
    pub states: States<ReconcileState>,
}

/// What is known of a session beyond the cache.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct ReconcileState {
    /// When its status was last written.
    written_at: Option<Instant>,
}

/// One reconcile of one session.
pub(crate) async fn reconcile(session: Arc<SandboxSession>, ctx: Arc<Context>) -> Result<Requeue, Error> {
    if session.metadata.deletion_timestamp.is_some() {
        return Ok(Requeue::await_change());
    }
    let uid = session.uid().unwrap_or_default();
    let now = Timestamp::now();
    let expiry = session.expiry();
    if expiry.is_some_and(|at| now >= at) {
        ctx.index
            .unfinished(&session)
            .into_iter()
            .for_each(|sandbox| ctx.sandboxes.push(sandbox));
    }
    if let Some(at) = ctx.states.get(&uid).written_at
        && at.elapsed() < WRITE_PAUSE
    {
        return Ok(Requeue::requeue(WRITE_PAUSE.saturating_sub(at.elapsed())));
    }
    let old = session.status.clone().unwrap_or_default();
    let new = status::status(&session, &old, &ctx.index.counts(&session), now);
    let is_news = new != old;
    if is_news {
        ctx.writer.session_status(&session, &new).await?;
    }
    ctx.states.update(&uid, |s| s.written_at = is_news.then(Instant::now));
    let wake = expiry
        .filter(|at| *at > now)
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    Ok(wake.map_or_else(Requeue::await_change, Requeue::requeue))
}

/// Whether a change of a session concerns its sandboxes. Our own writes of its counts do not.
pub(crate) fn concerns_sandboxes(session: &SandboxSession) -> bool {
    let observed = session.status.as_ref().and_then(|s| s.observed_generation);
    observed != session.metadata.generation || session.metadata.deletion_timestamp.is_some()
}
