//! What is left to do for a sandbox that has ended: pure. Its outcome is not looked at again.

use jiff::{SignedDuration, Timestamp};

use super::decision::{Action, Decision};
use super::observed::Observed;
use super::pod::{MainState, PodView};
use crate::api::SandboxStatus;
use crate::api::conditions::FINISHED;

/// Ends what still runs of the pod, deletes a pod that never ran, and deletes the record in time.
pub(super) fn after_end(o: &Observed, now: Timestamp) -> Decision {
    let decision = |action, wake| Decision {
        action,
        verdict: None,
        wake,
    };
    let ended = o.status.finished_at.as_ref().map_or(now, |t| t.0);
    let until = ended.max(latched_at(&o.status).unwrap_or(ended)) + SignedDuration::from_secs(o.effective.ttl);
    if let Some(action) = o.pod.as_ref().and_then(|pod| clean_up(o, pod)) {
        decision(action, Some(until).filter(|until| now < *until))
    } else if now >= until {
        decision(Action::Delete, None)
    } else {
        decision(Action::None, Some(until))
    }
}

fn clean_up(o: &Observed, pod: &PodView) -> Option<Action> {
    if pod.is_deleting() {
        return None;
    }
    if o.status.started_at.is_none() && pod.main_never_ran() {
        return Some(Action::DeletePod(pod.clone()));
    }
    // The kubelet ends sidecars once the main container has ended, but not what a webhook added.
    let is_ending = matches!(pod.main, MainState::Terminated(_)) && !pod.other_runs;
    let expires = pod.can_run && !is_ending && !pod.has_been_expired();
    expires.then(|| Action::SetDeadline(pod.clone(), 1))
}

fn latched_at(status: &SandboxStatus) -> Option<Timestamp> {
    let finished = status.conditions.iter().find(|c| c.type_ == FINISHED);
    finished
        .filter(|c| c.status == "True")
        .map(|c| c.last_transition_time.0)
}
