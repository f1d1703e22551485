//! Decide: the state machine of a sandbox, a pure function of what was observed and of the clock. A final state is
//! never left: the caller writes the status before it takes an action that destroys what the status was read from.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::after_end::after_end;
use super::decision::{Action, Decision, Verdict};
use super::observed::{Observed, Session};
use super::pod::{MainState, PodView, Scheduling};
use super::stop::{stop, stop_cause};
use super::verdict::{OVERTIME, attribute, external_end, natural_exit, never_started, node_lost, pod_is_gone};
use crate::api::{ANNOTATION_HOLD, State, reason};

/// Pause before a sandbox in a full namespace is reconciled again.
const FULL_PAUSE: SignedDuration = SignedDuration::from_secs(10);

pub(crate) fn decide(o: &Observed, now: Timestamp) -> Decision {
    if o.status.state.is_final() {
        return after_end(o, now);
    }
    if let Some(verdict) = o.pod.as_ref().and_then(|pod| natural_exit(o, pod, now)) {
        return Decision::end(verdict, now);
    }
    if let Some(cause) = stop_cause(o, now) {
        return stop(o, cause, now);
    }
    let Some(pod) = &o.pod else {
        return if o.pod_record.is_some() {
            Decision::end(pod_is_gone(o), now)
        } else {
            start(o, now)
        };
    };
    if let Some(verdict) = never_started(o, pod).or_else(|| external_end(o, pod)) {
        return end_once_terminated(o, pod, verdict, now);
    }
    // Once the main container runs, no problem of a sidecar ends the sandbox.
    if let Some(problem) = pod
        .problem
        .as_ref()
        .filter(|p| p.is_fatal && pod.main == MainState::Waiting)
    {
        return Decision::end(
            Verdict::new(State::Failed, attribute(o, problem), &problem.message),
            now,
        );
    }
    let decision = live(o, pod, now);
    match policy_action(o, pod) {
        Some(action) if decision.action == Action::None && !decision.is_end() => Decision { action, ..decision },
        _ => decision,
    }
}

fn policy_action(o: &Observed, pod: &PodView) -> Option<Action> {
    match &o.policy {
        // The cache may not have a new policy yet; by the time the pod runs it has.
        None if pod.main == MainState::Waiting => None,
        None => Some(Action::RestorePolicy),
        Some(policy) if policy.is_deleting => None,
        Some(policy) if !policy.is_unmodified => Some(Action::RestorePolicy),
        Some(policy) => {
            (pod.policy_uid.as_ref() != Some(&policy.uid)).then(|| Action::SetPolicyOwner(policy.uid.clone()))
        }
    }
}

/// A final state is written only when no container of the pod can run any more, or when the node is known to be lost.
/// Until then the sandbox is TERMINATING, with the same reason.
fn end_once_terminated(o: &Observed, pod: &PodView, verdict: Verdict, now: Timestamp) -> Decision {
    if pod.has_terminated() || verdict.reason == reason::NODE_LOST {
        return Decision::end(verdict, now);
    }
    let end = pod
        .deletes_at
        .or_else(|| Some(o.end_of_lifetime()? + SignedDuration::from_secs(o.pod_grace(pod))));
    let until = end.map(|end| end + OVERTIME);
    if until.is_some_and(|until| now >= until) {
        return Decision::end(node_lost(&verdict, pod), now);
    }
    let state = State::Terminating;
    Decision::wait(Verdict { state, ..verdict }, until)
}

/// No pod was created yet.
fn start(o: &Observed, now: Timestamp) -> Decision {
    let pending = |why: &'static str, message: String| waiting(o, now, Verdict::new(State::Pending, why, message));
    if let Some(what) = o.sandbox.annotations().get(ANNOTATION_HOLD) {
        return pending(
            reason::PENDING,
            format!("waiting for {what}, which its creator has yet to add"),
        );
    }
    let name = o.sandbox.spec.session_name.as_deref().unwrap_or_default();
    match &o.session {
        Session::Missing => pending(
            reason::SESSION_NOT_FOUND,
            format!("spec.sessionName: session {name} does not exist"),
        ),
        Session::Joining {
            has_room: false,
            session,
        } => {
            let most = session.spec.max_sandboxes.unwrap_or_default();
            pending(
                reason::SESSION_FULL,
                format!("session {name} already has {most} active sandboxes"),
            )
        }
        Session::Joining { has_room: true, .. } => unless_late(Action::Join, pending(reason::PENDING, String::new())),
        Session::Settled(_) if o.namespace_is_full => {
            let text = "the namespace already has as many active sandboxes as the operator allows (sandboxes.maxActivePerNamespace)";
            let decision = pending(reason::NAMESPACE_FULL, text.into());
            let wake = decision.wake.map(|until| until.min(now + FULL_PAUSE));
            Decision { wake, ..decision }
        }
        Session::Settled(_) => launch(o, now),
    }
}

/// Creates the children; after a failure, tells it, and tries again in time.
fn launch(o: &Observed, now: Timestamp) -> Decision {
    if let Some(message) = o.network.hold() {
        return waiting(
            o,
            now,
            Verdict::new(State::Pending, reason::NETWORK_NOT_ENFORCED, message),
        );
    }
    let Some(failure) = &o.launch_failure else {
        return unless_late(
            Action::Launch,
            waiting(o, now, Verdict::new(State::Pending, reason::PENDING, "")),
        );
    };
    let Some(retry_at) = failure.retry_at else {
        return Decision::end(failure.verdict.clone(), now);
    };
    let decision = waiting(o, now, failure.verdict.clone());
    if now.as_second() >= retry_at.as_second() {
        return unless_late(Action::Launch, decision);
    }
    let wake = decision.wake.map(|until| until.min(retry_at));
    Decision { wake, ..decision }
}

/// Acts, unless the start timeout is over.
fn unless_late(action: Action, decision: Decision) -> Decision {
    if decision.is_end() {
        decision
    } else {
        Decision { action, ..decision }
    }
}

/// Not RUNNING yet: tells why, and ends as FAILED with that reason when the start timeout is over.
fn waiting(o: &Observed, now: Timestamp, verdict: Verdict) -> Decision {
    let until = o.end_of_start(now).unwrap_or(now);
    if now < until {
        return Decision::wait(verdict, Some(until));
    }
    let why = match verdict.reason {
        reason::PENDING | reason::SCHEDULING | reason::STARTING => reason::START_TIMEOUT,
        known => known,
    };
    let late = format!("not RUNNING within startTimeoutSeconds: {}", o.effective.start_timeout);
    let message = match verdict.message.as_str() {
        "" => late,
        message => format!("{message} ({late})"),
    };
    Decision::end(Verdict::new(State::Failed, why, message), now)
}

/// A pod that has not ended.
fn live(o: &Observed, pod: &PodView, now: Timestamp) -> Decision {
    if pod.node.is_none() {
        return unscheduled(o, pod, now);
    }
    if pod.main != MainState::Waiting {
        return running(o, pod, now);
    }
    let verdict = match &pod.problem {
        Some(problem) => Verdict::new(State::Creating, attribute(o, problem), problem.message.clone()),
        None => Verdict::new(State::Creating, reason::STARTING, ""),
    };
    let decision = waiting(o, now, verdict);
    if decision.is_end() {
        return decision;
    }
    let wake = decision.wake.map(|end| {
        [o.poll_at, o.quiet_until(now)]
            .into_iter()
            .flatten()
            .fold(end, Timestamp::min)
    });
    Decision { wake, ..decision }
}

fn unscheduled(o: &Observed, pod: &PodView, now: Timestamp) -> Decision {
    let pending = |why: &'static str, message: &str| Verdict::new(State::Pending, why, message);
    match &pod.scheduling {
        Scheduling::Waiting => waiting(o, now, pending(reason::SCHEDULING, "")),
        Scheduling::Unschedulable(message) => waiting(o, now, pending(reason::UNSCHEDULABLE, message)),
        // A queue may hold the pod for hours: the start timeout does not run.
        Scheduling::Gated { gates, message } => {
            let text = match gates.as_slice() {
                [] => message.clone(),
                gates => format!(
                    "waiting for the pod's scheduling gates to be removed: {}",
                    gates.join(", ")
                ),
            };
            Decision::wait(pending(reason::SCHEDULING_GATED, &text), None)
        }
    }
}

fn running(o: &Observed, pod: &PodView, now: Timestamp) -> Decision {
    let lifetime = o.effective.lifetime;
    // The kubelet ends the pod in time. If it does not, the node is lost.
    let until = o
        .end_of_lifetime()
        .map(|end| end + SignedDuration::from_secs(o.pod_grace(pod)) + OVERTIME);
    if until.is_some_and(|until| now >= until) {
        let message = format!("its node did not end it after maxLifetimeSeconds: {lifetime}");
        return Decision::end(Verdict::new(State::Failed, reason::NODE_LOST, message), now);
    }
    let wake = [until, o.poll_at].into_iter().flatten().min();
    let decision = Decision::wait(Verdict::new(State::Running, reason::RUNNING, ""), wake);
    match pod.deadline {
        Some(deadline) if deadline > lifetime => Decision {
            action: Action::SetDeadline(pod.clone(), lifetime),
            ..decision
        },
        _ => decision,
    }
}
