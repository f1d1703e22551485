//! The session controller: counts by state, and the end of its lifetime.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::controller::Action as Next;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::error::Error;
use crate::api::conditions::{self, READY};
use crate::api::{SandboxSession, SandboxSessionStatus, SessionState, State, reason};

/// Least time between two writes of one session's counts.
const COALESCE: Duration = Duration::from_secs(1);

/// One look at one session.
pub async fn reconcile(session: Arc<SandboxSession>, ctx: Arc<Context>) -> Result<Next, Error> {
    if session.metadata.deletion_timestamp.is_some() {
        return Ok(Next::await_change());
    }
    let uid = session.uid().unwrap_or_default();
    let key = (session.namespace().unwrap_or_default(), session.name_any());
    let now = Timestamp::now();
    let expiry = session.expiry();
    if expiry.is_some_and(|at| now >= at) {
        ctx.queue.push_members(&key);
    }
    if let Some(at) = ctx.memory.recall(&uid).written
        && at.elapsed() < COALESCE
    {
        return Ok(Next::requeue(COALESCE.saturating_sub(at.elapsed())));
    }
    let old = session.status.clone().unwrap_or_default();
    let new = status(&session, &old, &ctx.sessions.counts(&key), now);
    if new != old {
        ctx.writer.session_status(&session, &new).await?;
        ctx.memory.note(&uid, |n| n.written = Some(Instant::now()));
    } else {
        ctx.memory.note(&uid, |n| n.written = None);
    }
    let wake = expiry
        .filter(|at| *at > now)
        .and_then(|at| Duration::try_from(at.duration_since(now)).ok());
    Ok(wake.map_or_else(Next::await_change, Next::requeue))
}

impl SandboxSession {
    /// When its lifetime ends.
    pub fn expiry(&self) -> Option<Timestamp> {
        let created = self.metadata.creation_timestamp.as_ref()?.0;
        self.spec.max_lifetime_seconds.map(|s| created + SignedDuration::from_secs(s))
    }

    /// Whether it is closed: on request, or at the end of its lifetime.
    pub fn is_closed(&self, now: Timestamp) -> bool {
        self.spec.desired_state == crate::api::SessionDesiredState::Closed || self.expiry().is_some_and(|at| now >= at)
    }
}

fn status(session: &SandboxSession, old: &SandboxSessionStatus, counts: &HashMap<State, i32>, now: Timestamp) -> SandboxSessionStatus {
    let of = |state: State| counts.get(&state).copied().unwrap_or_default();
    let active = counts.iter().filter(|(s, _)| !s.is_final()).map(|(_, n)| n).sum();
    let state = match (session.is_closed(now), active) {
        (false, _) => SessionState::Open,
        (true, 0) => SessionState::Closed,
        (true, _) => SessionState::Closing,
    };
    let mut new = SandboxSessionStatus {
        state,
        active,
        pending: of(State::Pending),
        creating: of(State::Creating),
        running: of(State::Running),
        terminating: of(State::Terminating),
        completed: of(State::Completed),
        failed: of(State::Failed),
        terminated: of(State::Terminated),
        observed_generation: session.metadata.generation,
        conditions: old.conditions.clone(),
    };
    let open = state == SessionState::Open;
    let why = if open { reason::OPEN } else { reason::CLOSED };
    conditions::set(&mut new.conditions, READY, open, why, "", session.metadata.generation, now);
    new
}
