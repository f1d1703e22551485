//! A stop on request, by the sandbox or its session: pure.
//!
//! The agent ends the main command with the grace period of the stop. Where there is no agent, or it does not do it,
//! the kubelet ends the pod:
//!
//! * by a deadline of one second, which keeps pod, exit code and logs, but has the grace period of the pod;
//! * where that is too long, by deleting the pod with the grace period of the stop, which loses the logs.
//!
//! The second cannot follow the first: a kubelet that already ends a pod does not shorten its grace period for a
//! deletion.

use jiff::{SignedDuration, Timestamp};

use super::decision::{Action, Decision, Verdict};
use super::observed::Observed;
use super::pod::{MainState, PodView};
use super::verdict::{OVERTIME, node_lost};
use crate::api::{DesiredState, State, reason};

/// How long after its time the agent or the kubelet may take for a step of a stop.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

/// The longest grace period of a pod that is waited for, to keep the logs, when the agent has failed to stop the main
/// command.
const LATE_GRACE: i64 = 10;

/// The reason for which the sandbox is to be stopped, if it is.
pub(super) fn stop_cause(o: &Observed, now: Timestamp) -> Option<&'static str> {
    if o.sandbox.spec.desired_state == DesiredState::Stopped {
        return Some(reason::STOPPED);
    }
    let is_closed = o.session.get().is_some_and(|s| s.is_closed(now));
    is_closed.then_some(reason::SESSION_CLOSED)
}

/// TERMINATING until no container of the pod can run any more, then TERMINATED.
pub(super) fn stop(o: &Observed, cause: &'static str, now: Timestamp) -> Decision {
    let message = match cause {
        reason::STOPPED => "stopped on request",
        _ => "its session was closed",
    };
    let verdict = |state: State| Verdict::new(state, cause, message);
    let Some(pod) = &o.pod else {
        return Decision::end(verdict(State::Terminated), now);
    };
    if pod.has_terminated() || pod.disruption == Some(reason::NODE_LOST) {
        return Decision::end(verdict(State::Terminated).with_exit(&pod.main), now);
    }
    let verdict = verdict(State::Terminating).with_exit(&pod.main);
    let step = next_step(o, pod, now);
    if step.lost_at.is_some_and(|at| now >= at) {
        return Decision::end(node_lost(&verdict, pod), now);
    }
    Decision {
        action: step.action,
        verdict: Some(verdict),
        wake: [step.wake, step.lost_at].into_iter().flatten().min(),
    }
}

struct Step {
    action: Action,
    /// When the next step is due.
    wake: Option<Timestamp>,
    /// When the pod must have ended if its kubelet is alive.
    lost_at: Option<Timestamp>,
}

fn next_step(o: &Observed, pod: &PodView, now: Timestamp) -> Step {
    // `expiresAt` was lowered to it when the stop began: see `status`.
    let end = o.end_of_stop(now);
    let lost_at = Some(end + SLACK + SignedDuration::from_secs(o.pod_grace(pod)) + OVERTIME);
    let step = |action, wake| Step { action, wake, lost_at };
    if let Some(deletes_at) = pod.deletes_at {
        return Step {
            lost_at: Some(deletes_at + OVERTIME),
            ..step(Action::None, None)
        };
    }
    if pod.node.is_none() {
        return step(Action::DeletePod(pod.clone()), None);
    }
    if matches!(pod.main, MainState::Terminated(_)) {
        // The kubelet ends sidecars by itself, but not what a webhook added.
        let expires = pod.other_runs && !pod.has_been_expired();
        let action = if expires {
            Action::SetDeadline(pod.clone(), 1)
        } else {
            Action::None
        };
        return step(action, None);
    }
    if pod.has_been_expired() {
        return step(Action::None, None);
    }
    if !pod.has_agent() {
        // One that has an agent, but does not run yet, is deleted afterwards.
        let is_exact = pod.agent_key.is_some() || o.pod_grace(pod) <= o.stop_grace();
        let action = if is_exact {
            Action::SetDeadline(pod.clone(), 1)
        } else {
            Action::KillPod(pod.clone(), o.stop_grace())
        };
        return step(action, None);
    }
    let late = end + SLACK;
    // The agent is asked once, and again when the grace period was shortened.
    if o.stopping_until().is_none_or(|written| end < written) {
        step(Action::StopAgent(pod.clone(), o.stop_grace()), Some(late))
    } else if now < late {
        step(Action::None, Some(late))
    } else {
        step(without_agent(o, pod, 0), None)
    }
}

/// Ends a pod whose agent cannot stop the main command: quickly, and with its logs if that does not take much longer
/// than `grace` seconds.
pub(super) fn without_agent(o: &Observed, pod: &PodView, grace: i64) -> Action {
    if o.pod_grace(pod) <= grace.max(LATE_GRACE) {
        Action::SetDeadline(pod.clone(), 1)
    } else {
        Action::KillPod(pod.clone(), grace)
    }
}
