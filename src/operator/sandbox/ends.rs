//! How a sandbox that was not asked to end came to its end: pure.

use jiff::Timestamp;

use super::decide::Verdict;
use super::observed::{Exit, Main, Observed, PodView, Trouble};
use crate::api::{State, reason};

/// The end of the main container, unless something else brought it about. That is looked for first, since each sign of it can come
/// with any exit code: a pod killed by its deadline may show 0, one that is deleted by someone may show Succeeded.
pub fn natural_exit(o: &Observed, pod: &PodView, now: Timestamp) -> Option<Verdict> {
    let Main::Ended(exit) = &pod.main else {
        return None;
    };
    // The kubelet tells the end of a container before it tells, with the pod's end, that a deadline was its cause.
    let out_of_time = o.end_of_lifetime().is_some_and(|end| now >= end);
    if !pod.ended && (out_of_time || pod.deadline == Some(1)) {
        return None;
    }
    if pod.deleting || pod.disruption.is_some() || pod.reason.is_some() {
        return None;
    }
    // What it makes of a stop that has begun is its own affair.
    (o.status.state != State::Terminating).then(|| by_exit(exit))
}

fn by_exit(exit: &Exit) -> Verdict {
    let text = |default: String| exit.message.clone().unwrap_or(default);
    let (state, why, message) = match (exit.code, exit.reason.as_str()) {
        (Some(0), _) => (State::Completed, reason::COMPLETED, "the main command ended with exit code 0".into()),
        // An OOM-killed child leaves this reason with the exit code of a main command that went on.
        (Some(137), "OOMKilled") => (
            State::Failed,
            reason::OOM_KILLED,
            "the main command needed more memory than its limit".into(),
        ),
        (Some(code), _) => {
            let said = exit.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
            (
                State::Failed,
                reason::ERROR,
                format!("the main command ended with exit code {code}{said}"),
            )
        }
        (None, "ContainerStatusUnknown") => (State::Failed, reason::UNKNOWN, text("the end of the main container was not seen".into())),
        (None, _) => (State::Failed, reason::START_ERROR, text("the main container could not be started".into())),
    };
    Verdict {
        exit: Some(exit.clone()),
        ..Verdict::new(state, why, message)
    }
}

/// What a container waits for on its node, and may wait for in vain.
const KEEPS_FROM_BEGINNING: [&str; 5] = [
    reason::IMAGE_PULL_ERROR,
    reason::AGENT_IMAGE_FAILED,
    reason::VOLUME_NOT_READY,
    reason::CONTAINER_CONFIG,
    reason::START_ERROR,
];

/// A lifetime that ended before the main container began is not what ended it: what kept it from beginning is.
pub fn never_began(o: &Observed, pod: &PodView) -> Option<Verdict> {
    let out_of_time = pod.reason.as_deref() == Some("DeadlineExceeded") && over(pod) && pod.main == Main::Waiting;
    if !out_of_time || o.status.started_at.is_some() {
        return None;
    }
    // The kubelet forgets what it waited for.
    let (why, text) = match &pod.trouble {
        Some(trouble) => (blame(o, trouble), Some(&trouble.message)),
        None => (o.status.reason.as_deref()?, o.status.message.as_ref()),
    };
    let why = KEEPS_FROM_BEGINNING.into_iter().find(|known| *known == why)?;
    let (text, seconds) = (text.map_or("", String::as_str), o.effective.lifetime);
    let text = format!("{text} (it was not RUNNING within its lifetime of {seconds} s)");
    Some(Verdict::new(State::Failed, why, text))
}

/// Ends that came from outside, in the order in which they explain each other.
pub fn taken_away(pod: &PodView) -> Option<Verdict> {
    let text = |default: &str| pod.message.clone().unwrap_or_else(|| default.into());
    let verdict = match (pod.reason.as_deref(), pod.disruption) {
        (Some("DeadlineExceeded"), _) if over(pod) => Verdict::new(State::Terminated, reason::LIFETIME_EXCEEDED, "it outlived maxLifetimeSeconds"),
        (Some("DeadlineExceeded"), _) => return None,
        (_, Some(why)) if pod.deleting || pod.ended => Verdict::new(State::Failed, why, text("the pod was disrupted")),
        _ if pod.deleting => Verdict::new(State::Failed, reason::POD_DELETED, "the pod was deleted"),
        (Some("Evicted"), _) => Verdict::new(State::Failed, reason::EVICTED, text("the pod was evicted")),
        (Some("Preempting"), _) => Verdict::new(State::Failed, reason::PREEMPTED, text("the pod was preempted")),
        (Some("NodeLost"), _) => Verdict::new(State::Failed, reason::NODE_LOST, text("the node was lost")),
        (why, _) if pod.ended => match (&pod.main, &pod.trouble) {
            (Main::Ended(exit), _) => by_exit(exit),
            (Main::Waiting | Main::Running(_), Some(trouble)) => Verdict::new(State::Failed, trouble.reason, &trouble.message),
            (Main::Waiting | Main::Running(_), None) => {
                let why = why.unwrap_or("Failed");
                Verdict::new(
                    State::Failed,
                    reason::ERROR,
                    format!("the pod failed: {why}: {}", text("no more is known")),
                )
            }
        },
        _ => return None,
    };
    Some(verdict.with_exit(&pod.main))
}

/// Ended, and its main container too: the kubelet may tell of the pod's end while the container is still in its grace.
pub fn over(pod: &PodView) -> bool {
    match pod.main {
        Main::Ended(_) => true,
        Main::Running(_) => false,
        Main::Waiting => pod.ended,
    }
}

/// An image volume that cannot be pulled shows on the container that mounts it; its text has the image's name.
pub fn blame(o: &Observed, trouble: &Trouble) -> &'static str {
    let image = matches!(trouble.reason, reason::IMAGE_PULL_ERROR | reason::NEVER_PULL | reason::INVALID_IMAGE_NAME);
    let ours = image && !o.agent_image.is_empty() && trouble.message.contains(o.agent_image) && o.agent_image != o.effective.image;
    if ours { reason::AGENT_IMAGE_FAILED } else { trouble.reason }
}
