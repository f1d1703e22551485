//! The state machine of a sandbox: a pure function of what was observed and of the clock. Final states are latched by the caller,
//! who writes the status before any action that destroys what it was read from.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::ends::{blame, natural_exit, never_began, over, taken_away};
use super::observed::{Exit, Main, Observed, PodView, Session};
use crate::api::{ANNOTATION_HOLD, DesiredState, SandboxStatus, State, reason};

/// How long after its time a pod may still be there before the record ends without it: a dead kubelet must not make a record immortal.
const OVERTIME: SignedDuration = SignedDuration::from_secs(60);

/// How long after the grace of a stop the agent has to be done: then the kubelet ends the pod.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

/// What to do next, and what to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What to do, after the status is written.
    pub action: Action,
    /// What to tell.
    pub verdict: Verdict,
    /// When to look again without being told to.
    pub wake: Option<Timestamp>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Nothing.
    None,
    /// Make the session an owner of the sandbox.
    Join,
    /// Make the children: policies, then the pod.
    Launch,
    /// Make the network policy anew, or as it was: somebody deleted or edited it.
    RestorePolicy,
    /// Make the policy of this UID an owner of the pod: it is another than the one that the pod was made with.
    NamePolicy(String),
    /// Lower the pod's `activeDeadlineSeconds`. Lowered to 1 it ends the pod but keeps it, with exit code and logs.
    SetDeadline(PodView, i64),
    /// Ask the agent to end the main command, with these seconds between SIGTERM and SIGKILL.
    AskToStop(PodView, i64),
    /// Delete a pod that has nothing to keep.
    DeletePod(PodView),
    /// Delete the record.
    Delete,
}

/// The state, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// State.
    pub state: State,
    /// One of our reasons.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
    /// How the main container ended, if it is known.
    pub exit: Option<Exit>,
}

impl Verdict {
    /// A state with its reason and text.
    pub fn new(state: State, reason: &'static str, message: impl Into<String>) -> Verdict {
        Verdict {
            state,
            reason,
            message: message.into(),
            exit: None,
        }
    }

    pub(super) fn with_exit(self, main: &Main) -> Verdict {
        let exit = match main {
            Main::Ended(exit) => Some(exit.clone()),
            Main::Waiting | Main::Running(_) => None,
        };
        Verdict { exit, ..self }
    }
}

/// Decides for a sandbox that has not ended.
pub fn decide(o: &Observed, now: Timestamp) -> Decision {
    let tell = |verdict: Verdict| Decision {
        action: Action::None,
        verdict,
        wake: None,
    };
    if let Some(verdict) = o.pod.as_ref().and_then(|pod| natural_exit(o, pod, now)) {
        return tell(verdict);
    }
    if let Some(why) = stop_requested(o, now) {
        return stop(o, why, now);
    }
    let Some(pod) = &o.pod else {
        return if o.launched {
            tell(Verdict::new(State::Failed, reason::POD_DELETED, "the pod was deleted"))
        } else {
            start(o, now)
        };
    };
    if let Some(verdict) = never_began(o, pod).or_else(|| taken_away(pod)) {
        return tell(verdict);
    }
    // Once the main container runs, trouble of a sidecar does not decide anything.
    if let Some(trouble) = pod.trouble.as_ref().filter(|t| t.fatal && pod.main == Main::Waiting) {
        return tell(Verdict::new(State::Failed, blame(o, trouble), &trouble.message));
    }
    let live = live(o, pod, now);
    match care_for_policy(o, pod) {
        Some(action) if live.action == Action::None && !live.verdict.state.is_final() => Decision { action, ..live },
        _ => live,
    }
}

fn care_for_policy(o: &Observed, pod: &PodView) -> Option<Action> {
    match &o.policy {
        // The cache may not have a new one yet; by the time the pod runs it has.
        None if pod.main == Main::Waiting => None,
        None => Some(Action::RestorePolicy),
        Some(policy) if policy.deleting => None,
        Some(policy) if !policy.as_made => Some(Action::RestorePolicy),
        Some(policy) => (pod.policy.as_ref() != Some(&policy.uid)).then(|| Action::NamePolicy(policy.uid.clone())),
    }
}

/// Decides for a sandbox that has ended: its record goes in time, and a pod that never ran at once.
pub fn after_end(o: &Observed, now: Timestamp) -> (Action, Option<Timestamp>) {
    if let Some(pod) = &o.pod
        && !pod.ended
        && !pod.deleting
        && pod.main == Main::Waiting
    {
        return (Action::DeletePod(pod.clone()), None);
    }
    let ended = o.status.finished_at.as_ref().map_or(now, |t| t.0);
    let until = ended.max(latched_at(o.status).unwrap_or(ended)) + SignedDuration::from_secs(o.effective.ttl);
    if now >= until {
        (Action::Delete, None)
    } else {
        (Action::None, Some(until))
    }
}

fn latched_at(status: &SandboxStatus) -> Option<Timestamp> {
    let finished = status.conditions.iter().find(|c| c.type_ == crate::api::conditions::FINISHED);
    finished.filter(|c| c.status == "True").map(|c| c.last_transition_time.0)
}

fn stop_requested(o: &Observed, now: Timestamp) -> Option<&'static str> {
    if o.sandbox.spec.desired_state == DesiredState::Stopped {
        return Some(reason::STOPPED);
    }
    let session = match o.session {
        Session::Settled(session) => session,
        Session::Joining { session, .. } => Some(session),
        Session::Missing => None,
    };
    session.filter(|s| s.is_closed(now)).map(|_| reason::SESSION_CLOSED)
}

fn stop(o: &Observed, why: &'static str, now: Timestamp) -> Decision {
    let said = if why == reason::STOPPED {
        "stopped on request"
    } else {
        "its session was closed"
    };
    let done = |main: &Main| Decision {
        action: Action::None,
        verdict: Verdict::new(State::Terminated, why, said).with_exit(main),
        wake: None,
    };
    let Some(pod) = &o.pod else {
        return done(&Main::Waiting);
    };
    if over(pod) {
        return done(&pod.main);
    }
    // `expiresAt` was lowered when the stop began; see `status`.
    let end = o.end_of_stop(now);
    // The kubelet is asked when the agent could not be, or was not done in time; it then gives the pod's own grace.
    let backstop = end + OVERTIME + if pod.has_agent() { SLACK + grace(o) } else { SignedDuration::ZERO };
    if now >= backstop {
        return done(&pod.main);
    }
    let (action, wake) = match &pod.node {
        _ if pod.deleting || pod.deadline == Some(1) => (Action::None, backstop),
        None => (Action::DeletePod(pod.clone()), backstop),
        // Once, and again when the grace was shortened.
        Some(_) if pod.has_agent() && o.stopping_until().is_none_or(|told| end < told) => {
            (Action::AskToStop(pod.clone(), o.stop_grace()), end + SLACK)
        }
        Some(_) if pod.has_agent() && now < end + SLACK => (Action::None, end + SLACK),
        Some(_) => (Action::SetDeadline(pod.clone(), 1), backstop),
    };
    Decision {
        action,
        verdict: Verdict::new(State::Terminating, why, said),
        wake: Some(wake),
    }
}

fn grace(o: &Observed) -> SignedDuration {
    SignedDuration::from_secs(o.effective.grace)
}

/// No pod yet.
fn start(o: &Observed, now: Timestamp) -> Decision {
    let wait = |why: &'static str, message: String| waiting(o, now, Verdict::new(State::Pending, why, message));
    if let Some(what) = o.sandbox.annotations().get(ANNOTATION_HOLD) {
        return wait(reason::PENDING, format!("it waits for {what}, which whoever made it still adds"));
    }
    let name = o.sandbox.spec.session_name.as_deref().unwrap_or_default();
    match o.session {
        Session::Missing => wait(reason::SESSION_NOT_FOUND, format!("spec.sessionName: there is no session {name}")),
        Session::Joining { room: false, session } => {
            let most = session.spec.max_sandboxes.unwrap_or_default();
            wait(reason::SESSION_FULL, format!("session {name} already has {most} active sandboxes"))
        }
        Session::Joining { room: true, .. } => go(Action::Join, wait(reason::PENDING, String::new())),
        Session::Settled(_) => go(Action::Launch, wait(reason::PENDING, String::new())),
    }
}

/// Acts, unless the time to start is up already.
fn go(action: Action, wait: Decision) -> Decision {
    if wait.verdict.state.is_final() {
        wait
    } else {
        Decision { action, ..wait }
    }
}

/// Not RUNNING yet: told as it is, and FAILED with just that when the time is up.
pub fn waiting(o: &Observed, now: Timestamp, verdict: Verdict) -> Decision {
    let until = o.end_of_start().unwrap_or(now);
    if now < until {
        return Decision {
            action: Action::None,
            verdict,
            wake: Some(until),
        };
    }
    let why = match verdict.reason {
        reason::PENDING | reason::SCHEDULING | reason::STARTING => reason::START_TIMEOUT,
        known => known,
    };
    let seconds = o.effective.start_timeout;
    let message = if verdict.message.is_empty() {
        format!("it was not RUNNING within {seconds} s")
    } else {
        format!("{} (it was not RUNNING within {seconds} s)", verdict.message)
    };
    Decision {
        action: Action::None,
        verdict: Verdict::new(State::Failed, why, message),
        wake: None,
    }
}

/// A pod that lives.
fn live(o: &Observed, pod: &PodView, now: Timestamp) -> Decision {
    if pod.node.is_none() {
        let verdict = match &pod.unschedulable {
            Some(text) => Verdict::new(State::Pending, reason::UNSCHEDULABLE, text),
            None => Verdict::new(State::Pending, reason::SCHEDULING, ""),
        };
        return waiting(o, now, verdict);
    }
    if pod.main != Main::Waiting {
        // The kubelet ends it in time; if it does not, the node is gone.
        let until = o.end_of_lifetime().map(|end| end + grace(o) + OVERTIME);
        if until.is_some_and(|t| now >= t) {
            let text = "its node did not end it at the end of its lifetime";
            return Decision {
                action: Action::None,
                verdict: Verdict::new(State::Failed, reason::NODE_LOST, text),
                wake: None,
            };
        }
        let lifetime = o.effective.lifetime;
        let action = match pod.deadline {
            Some(deadline) if deadline > lifetime => Action::SetDeadline(pod.clone(), lifetime),
            _ => Action::None,
        };
        return Decision {
            action,
            verdict: Verdict::new(State::Running, reason::RUNNING, ""),
            wake: until,
        };
    }
    let verdict = match &pod.trouble {
        Some(t) => Verdict::new(State::Creating, blame(o, t), t.message.clone()),
        None => Verdict::new(State::Creating, reason::STARTING, ""),
    };
    let decision = waiting(o, now, verdict);
    let wake = decision
        .wake
        .map(|end| [o.look_again, o.quiet_until(now)].into_iter().flatten().fold(end, Timestamp::min));
    Decision { wake, ..decision }
}
