//! The status of a verdict, and whether it is worth a write: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::decision::Verdict;
use super::observed::{Observed, Session};
use super::pod::{MainState, PodView, Scheduling};
use crate::api::conditions::{self, FINISHED, NETWORK_ENFORCED, POD_SCHEDULED, READY, SCHEDULING_GATED};
use crate::api::{PodIdentity, PodOrigin, SandboxStatus, State, reason};

pub(super) fn status(o: &Observed, verdict: &Verdict, now: Timestamp) -> SandboxStatus {
    let old = &o.status;
    let pod = o.pod.as_ref();
    let generation = o.sandbox.metadata.generation;
    let has_ended = verdict.state.is_final();
    let started = match pod.map(|p| &p.main) {
        Some(MainState::Running(at)) => *at,
        Some(MainState::Terminated(exit)) => exit.started_at,
        Some(MainState::Waiting) | None => None,
    };
    let finished = verdict.exit.as_ref().and_then(|e| e.finished_at).unwrap_or(now);
    let mut new = SandboxStatus {
        state: verdict.state,
        reason: Some(verdict.reason.into()),
        message: Some(verdict.message.clone()).filter(|m| !m.is_empty()),
        // One that was seen while the sandbox was TERMINATING still holds when its pod is gone.
        exit_code: verdict.exit.as_ref().map_or(old.exit_code, |e| e.code),
        pod_name: pod.map(|p| p.name.clone()).or_else(|| old.pod_name.clone()),
        pod: pod_identity(o),
        service_name: o
            .service
            .as_ref()
            .map(|s| s.name.clone())
            .or_else(|| old.service_name.clone()),
        // Nothing answers after the end.
        urls: match &o.service {
            _ if has_ended => vec![],
            Some(service) => service.urls.clone(),
            None => old.urls.clone(),
        },
        pod_ip: pod.and_then(|p| p.ip.clone()).or_else(|| old.pod_ip.clone()),
        node_name: pod.and_then(|p| p.node.clone()).or_else(|| old.node_name.clone()),
        started_at: started.map(Time).or_else(|| old.started_at.clone()),
        finished_at: has_ended.then_some(Time(finished)),
        expires_at: expires_at(o, verdict, now).map(Time),
        // A session's defaults may change later; the pod does not.
        container_image: old.container_image.clone().or_else(|| Some(o.effective.image.clone())),
        max_lifetime_seconds: Some(o.effective.lifetime),
        tags: tags(o),
        session_uid: old.session_uid.clone().or_else(|| session_uid(o)),
        observed_generation: generation,
        conditions: old.conditions.clone(),
    };
    let mut set = |kind: &str, value: bool| {
        conditions::set(
            &mut new.conditions,
            kind,
            value,
            verdict.reason,
            &verdict.message,
            generation,
            now,
        );
    };
    set(READY, verdict.state == State::Running);
    set(FINISHED, has_ended);
    if let Some(pod) = pod {
        set_scheduling(&mut new, pod, generation, now);
    }
    set_network(&mut new, o, now);
    new
}

/// The status of a sandbox that has ended and whose spec changed afterwards: nothing but what the spec says moves. None
/// if it did not change.
pub(super) fn acknowledged(o: &Observed) -> Option<SandboxStatus> {
    let generation = o.sandbox.metadata.generation;
    (o.status.observed_generation != generation).then(|| SandboxStatus {
        observed_generation: generation,
        tags: tags(o),
        ..o.status.clone()
    })
}

/// The identity that is written into the status.
fn pod_identity(o: &Observed) -> Option<PodIdentity> {
    let written = o.status.pod.clone();
    written.or_else(|| {
        let pod = o.pod.as_ref()?;
        Some(PodIdentity {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            origin: PodOrigin::Created,
            incarnation: 1,
        })
    })
}

fn set_scheduling(new: &mut SandboxStatus, pod: &PodView, generation: Option<i64>, now: Timestamp) {
    let (is_bound, why, message) = match (&pod.node, &pod.scheduling) {
        (Some(_), _) => (true, "Scheduled", ""),
        (None, Scheduling::Waiting) => (false, reason::SCHEDULING, ""),
        (None, Scheduling::Unschedulable(message)) => (false, reason::UNSCHEDULABLE, message.as_str()),
        (None, Scheduling::Gated { message, .. }) => (false, reason::SCHEDULING_GATED, message.as_str()),
    };
    conditions::set(
        &mut new.conditions,
        POD_SCHEDULED,
        is_bound,
        why,
        message,
        generation,
        now,
    );
    // It remembers when the gates were removed: the start timeout counts from then.
    let is_gated = matches!(pod.scheduling, Scheduling::Gated { .. });
    if is_gated || new.conditions.iter().any(|c| c.type_ == SCHEDULING_GATED) {
        let why = if is_gated {
            reason::SCHEDULING_GATED
        } else {
            "GatesRemoved"
        };
        conditions::set(
            &mut new.conditions,
            SCHEDULING_GATED,
            is_gated,
            why,
            "",
            generation,
            now,
        );
    }
}

/// Sets the condition only if it is not `True`, or was not before: most sandboxes do not have it.
fn set_network(new: &mut SandboxStatus, o: &Observed, now: Timestamp) {
    let Some((status, why, message)) = o.network.condition() else {
        return;
    };
    if status != "True" || new.conditions.iter().any(|c| c.type_ == NETWORK_ENFORCED) {
        let generation = o.sandbox.metadata.generation;
        conditions::set_to(
            &mut new.conditions,
            NETWORK_ENFORCED,
            status,
            why,
            message,
            generation,
            now,
        );
    }
}

fn tags(o: &Observed) -> Option<Vec<String>> {
    Some(o.effective.tags.clone()).filter(|t| !t.is_empty())
}

/// The end of the lifetime, as the kubelet counts it; once a stop has begun, the end of its grace period.
fn expires_at(o: &Observed, verdict: &Verdict, now: Timestamp) -> Option<Timestamp> {
    let old = o.status.expires_at.as_ref().map(|t| t.0);
    match (verdict.state, verdict.reason) {
        (State::Terminating, reason::STOPPED | reason::SESSION_CLOSED) => Some(o.end_of_stop(now)),
        _ => o.end_of_lifetime().or(old),
    }
}

fn session_uid(o: &Observed) -> Option<String> {
    match &o.session {
        Session::Settled(session) => session.as_ref().and_then(|s| s.uid()),
        Session::Joining { .. } | Session::Missing => None,
    }
}

/// When the status of a sandbox that has not ended was first written.
pub(super) fn first_written(status: &SandboxStatus) -> Option<Timestamp> {
    let unfinished = status
        .conditions
        .iter()
        .find(|c| c.type_ == FINISHED && c.status == "False");
    unfinished.map(|c| c.last_transition_time.0)
}

/// Whether `new` is worth a write: there is one from creation to RUNNING where all goes well and fast, and one more to
/// the end.
///
/// * A new sandbox that waits its turn is PENDING by the schema's default already: the first news is a node, or a
///   problem.
/// * CREATING is news only if the sandbox does not run soon after.
/// * A new state, reason, message or exit code is news, and so is a change of the spec.
/// * Once the sandbox has run, its address and the end of its lifetime are news too. Before, they are written together
///   with the next news, and so are the node's name and the conditions.
pub(super) fn is_worth_writing(o: &Observed, new: &SandboxStatus, now: Timestamp) -> bool {
    let old = &o.status;
    if new.reason.as_deref() == Some(reason::STARTING) && o.quiet_until(now).is_some() {
        return false;
    }
    let is_unwritten = old.observed_generation.is_none();
    let is_plain =
        new.state == State::Pending && matches!(new.reason.as_deref(), Some(reason::PENDING | reason::SCHEDULING));
    if is_unwritten && is_plain {
        return false;
    }
    let news = |s: &SandboxStatus| {
        (
            s.state,
            s.reason.clone(),
            s.message.clone(),
            s.exit_code,
            s.observed_generation,
        )
    };
    let has_run = !matches!(new.state, State::Pending | State::Creating);
    let addresses = |s: &SandboxStatus| {
        (
            s.pod_ip.clone(),
            s.expires_at.clone(),
            s.service_name.clone(),
            s.urls.clone(),
        )
    };
    news(old) != news(new) || has_run && addresses(old) != addresses(new)
}
