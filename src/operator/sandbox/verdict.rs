//! What a sandbox's state is and why, and how one ended that was not asked to stop: pure.

use jiff::{SignedDuration, Timestamp};

use super::decision::Verdict;
use super::observed::Observed;
use super::pod::{Exit, MainState, PodView, StartProblem};
use crate::api::{State, reason};

/// How long after its time the kubelet may take to end a pod. After that the record ends without it: a dead kubelet
/// must not keep a record alive for ever.
pub(super) const OVERTIME: SignedDuration = SignedDuration::from_secs(60);

/// The exit of the main container, unless something else caused it. Other causes are checked first, since each can come
/// with any exit code: a pod that its deadline ended may show 0, a pod that was deleted may show Succeeded.
pub(super) fn natural_exit(o: &Observed, pod: &PodView, now: Timestamp) -> Option<Verdict> {
    let MainState::Terminated(exit) = &pod.main else {
        return None;
    };
    // The kubelet reports the end of a container before it reports that a deadline caused it.
    let is_out_of_time = o.end_of_lifetime().is_some_and(|end| now >= end);
    if !pod.has_final_phase && (is_out_of_time || pod.has_been_expired()) {
        return None;
    }
    if pod.is_deleting() || pod.disruption.is_some() || pod.reason.is_some() {
        return None;
    }
    // The exit code with which a command answers a stop is not an outcome.
    (o.status.state != State::Terminating).then(|| by_exit(exit))
}

fn by_exit(exit: &Exit) -> Verdict {
    let message_or = |default: &str| exit.message.clone().unwrap_or_else(|| default.into());
    let (state, why, message) = match (exit.code, exit.reason.as_str()) {
        (Some(0), _) => (
            State::Completed,
            reason::COMPLETED,
            "the main command ended with exit code 0".into(),
        ),
        // A child process that was OOM-killed leaves this reason too, with the exit code of the main command.
        (Some(137), "OOMKilled") => (
            State::Failed,
            reason::OOM_KILLED,
            "the main command needed more memory than its limit".into(),
        ),
        (Some(code), _) => {
            let detail = exit.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
            (
                State::Failed,
                reason::ERROR,
                format!("the main command ended with exit code {code}{detail}"),
            )
        }
        (None, "ContainerStatusUnknown") => (
            State::Failed,
            reason::UNKNOWN,
            message_or("the end of the main container was not seen"),
        ),
        (None, _) => (
            State::Failed,
            reason::START_ERROR,
            message_or("the main container could not be started"),
        ),
    };
    Verdict {
        exit: Some(exit.clone()),
        ..Verdict::new(state, why, message)
    }
}

/// What can keep a container on a node from starting until the lifetime ends.
const START_BLOCKERS: [&str; 5] = [
    reason::IMAGE_PULL_ERROR,
    reason::AGENT_IMAGE_FAILED,
    reason::VOLUME_NOT_READY,
    reason::CONTAINER_CONFIG,
    reason::START_ERROR,
];

/// Of a sandbox whose lifetime ended before its main container started: the problem that kept it from starting, if one
/// is known.
pub(super) fn never_started(o: &Observed, pod: &PodView) -> Option<Verdict> {
    let is_out_of_time =
        pod.reason.as_deref() == Some("DeadlineExceeded") && pod.has_final_phase && pod.main == MainState::Waiting;
    if !is_out_of_time || o.status.started_at.is_some() {
        return None;
    }
    // At the end the kubelet no longer reports the problem.
    let (why, message) = match &pod.problem {
        Some(problem) => (attribute(o, problem), Some(&problem.message)),
        None => (o.status.reason.as_deref()?, o.status.message.as_ref()),
    };
    let why = START_BLOCKERS.into_iter().find(|known| *known == why)?;
    let (message, seconds) = (message.map_or("", String::as_str), o.effective.lifetime);
    let message = format!("{message} (not RUNNING within maxLifetimeSeconds: {seconds})");
    Some(Verdict::new(State::Failed, why, message))
}

/// An end that something outside of the sandbox caused; the first cause that explains the others.
pub(super) fn external_end(o: &Observed, pod: &PodView) -> Option<Verdict> {
    let message_or = |default: &str| pod.message.clone().unwrap_or_else(|| default.into());
    let verdict = match (pod.reason.as_deref(), pod.disruption) {
        (Some("DeadlineExceeded"), _) => lifetime_exceeded(o),
        (_, Some(why)) if pod.is_deleting() || pod.has_final_phase => {
            Verdict::new(State::Failed, why, message_or("the pod was disrupted"))
        }
        _ if pod.is_deleting() => Verdict::new(State::Failed, reason::POD_DELETED, POD_DELETED),
        (Some("Evicted"), _) => Verdict::new(State::Failed, reason::EVICTED, message_or("the pod was evicted")),
        (Some("Preempting"), _) => Verdict::new(State::Failed, reason::PREEMPTED, message_or("the pod was preempted")),
        (Some("NodeLost"), _) => Verdict::new(State::Failed, reason::NODE_LOST, message_or("the node was lost")),
        (why, _) if pod.has_final_phase => match (&pod.main, &pod.problem) {
            (MainState::Terminated(exit), _) => by_exit(exit),
            (MainState::Waiting | MainState::Running(_), Some(problem)) => {
                Verdict::new(State::Failed, problem.reason, &problem.message)
            }
            (MainState::Waiting | MainState::Running(_), None) => {
                let why = why.unwrap_or("Failed");
                Verdict::new(
                    State::Failed,
                    reason::ERROR,
                    format!("the pod failed: {why}: {}", message_or("the kubelet gives no details")),
                )
            }
        },
        _ => return None,
    };
    Some(verdict.with_exit(&pod.main))
}

/// Ends from outside that take time: the sandbox is TERMINATING with this reason until its containers have stopped.
const EXTERNAL_ENDS: [&str; 5] = [
    reason::LIFETIME_EXCEEDED,
    reason::POD_DELETED,
    reason::PREEMPTED,
    reason::EVICTED,
    reason::NODE_LOST,
];
const POD_DELETED: &str = "the pod was deleted";

/// The end of a sandbox whose pod no longer exists: the cause that its status already names, else the deletion.
pub(super) fn pod_is_gone(o: &Observed) -> Verdict {
    let recorded = o
        .status
        .reason
        .as_deref()
        .filter(|_| o.status.state == State::Terminating);
    match EXTERNAL_ENDS.into_iter().find(|known| Some(*known) == recorded) {
        Some(reason::LIFETIME_EXCEEDED) => lifetime_exceeded(o),
        Some(known) => Verdict::new(State::Failed, known, o.status.message.as_deref().unwrap_or(POD_DELETED)),
        None => Verdict::new(State::Failed, reason::POD_DELETED, POD_DELETED),
    }
}

fn lifetime_exceeded(o: &Observed) -> Verdict {
    let message = format!("ended after maxLifetimeSeconds: {}", o.effective.lifetime);
    Verdict::new(State::Terminated, reason::LIFETIME_EXCEEDED, message)
}

/// The reason of a start problem. An image volume that cannot be pulled is reported by the container that mounts it;
/// the message names the image.
pub(super) fn attribute(o: &Observed, problem: &StartProblem) -> &'static str {
    let is_pull = matches!(
        problem.reason,
        reason::IMAGE_PULL_ERROR | reason::NEVER_PULL | reason::INVALID_IMAGE_NAME
    );
    let sidecars = o.effective.workload.pod.sidecars.iter().flatten();
    let mut own = sidecars.map(|s| s.image.as_str()).chain([o.effective.image.as_str()]);
    let is_ours = is_pull
        && names_image(&problem.message, &o.agent_image)
        && !own.any(|image| names_image(&problem.message, image));
    if is_ours {
        reason::AGENT_IMAGE_FAILED
    } else {
        problem.reason
    }
}

/// Whether a message names this image, and not only another image whose name contains it. The kubelet may prefix the
/// registry.
fn names_image(message: &str, image: &str) -> bool {
    let continues = |c: char| c.is_ascii_alphanumeric() || "._-/@".contains(c);
    let precedes = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    // `image:tag: reason` ends the name, `image:tag` does not.
    let ends = |rest: &str| match rest.strip_prefix(':') {
        Some(more) => !more.starts_with(continues),
        None => !rest.starts_with(continues),
    };
    !image.is_empty()
        && message
            .match_indices(image)
            .any(|(at, _)| !message[..at].ends_with(precedes) && ends(&message[at + image.len()..]))
}

/// The end of a record whose pod should have ended, which its node does not report.
pub(super) fn node_lost(cause: &Verdict, pod: &PodView) -> Verdict {
    let message = format!(
        "{}; its node has not reported that the containers stopped",
        cause.message
    );
    Verdict::new(State::Failed, reason::NODE_LOST, message).with_exit(&pod.main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_only_as_a_whole() {
        let agent = "sandbox-operator:dev";
        for (message, named) in [
            ("Back-off pulling image \"sandbox-operator:dev\": ErrImagePull", true),
            (
                "failed to pull and unpack image \"docker.io/library/sandbox-operator:dev\": not found",
                true,
            ),
            ("sandbox-operator:dev: not found", true),
            ("Back-off pulling image \"sandbox-operator:dev-2\"", false),
            ("Back-off pulling image \"my-sandbox-operator:dev\"", false),
            ("Back-off pulling image \"sandbox-operator:dev/x\"", false),
            ("Back-off pulling image \"x@sandbox-operator:dev:1\"", false),
            ("", false),
        ] {
            assert_eq!(names_image(message, agent), named, "{message}");
        }
        assert!(!names_image("x", ""));
    }
}
