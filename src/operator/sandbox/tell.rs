//! Tell: writes the status if it is news, and makes events.

use jiff::Timestamp;
use kube::ResourceExt;
use std::time::Duration;

use super::context::Context;
use super::decision::Verdict;
use super::observed::Observed;
use super::status;
use crate::api::{SandboxStatus, State};
use crate::operator::error::Error;

/// Writes the status of a verdict; without one, that of a sandbox that has ended.
pub(super) async fn tell(o: &Observed, verdict: Option<&Verdict>, ctx: &Context, now: Timestamp) -> Result<(), Error> {
    let new = match verdict {
        Some(verdict) => Some(status::status(o, verdict, now)).filter(|new| status::is_worth_writing(o, new, now)),
        None => status::acknowledged(o),
    };
    let Some(new) = new else {
        return Ok(());
    };
    ctx.writer.sandbox_status(&o.sandbox, &o.status, &new).await?;
    report(o, &new, ctx, now);
    ctx.states.update(&o.sandbox.uid().unwrap_or_default(), |s| {
        s.written_status = Some(Box::new(new))
    });
    Ok(())
}

/// An event for each end, and for what keeps a sandbox from starting. A start without problems makes none.
fn report(o: &Observed, new: &SandboxStatus, ctx: &Context, now: Timestamp) {
    if new.state == State::Running
        && o.status.state != State::Running
        && let Some(created) = &o.sandbox.metadata.creation_timestamp
    {
        ctx.metrics
            .running_after(Duration::try_from(now.duration_since(created.0)).unwrap_or_default());
    }
    let reason = new.reason.as_deref().unwrap_or_default();
    let message = new.message.as_deref().unwrap_or_default();
    let has_ended = new.state.is_final() && !o.status.state.is_final();
    let waits =
        matches!(new.state, State::Pending | State::Creating) && !message.is_empty() && o.status.reason != new.reason;
    match new.state {
        State::Completed | State::Terminated if has_ended => ctx.events.normal(o.sandbox.as_ref(), reason, message),
        State::Failed if has_ended => ctx.events.warn(o.sandbox.as_ref(), reason, message),
        _ if waits => ctx.events.warn(o.sandbox.as_ref(), reason, message),
        _ => {}
    }
}
