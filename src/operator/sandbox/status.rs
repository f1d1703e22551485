//! From a decision to the status that is written: pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::decide::Verdict;
use super::observed::{Main, Observed, Session};
use crate::api::conditions::{self, FINISHED, POD_SCHEDULED, READY};
use crate::api::{SandboxStatus, State, reason};

/// The new status.
pub fn status(o: &Observed, verdict: &Verdict, now: Timestamp) -> SandboxStatus {
    let old = o.status;
    let pod = o.pod.as_ref();
    let generation = o.sandbox.metadata.generation;
    let ended = verdict.state.is_final();
    let started = match pod.map(|p| &p.main) {
        Some(Main::Running(at)) => *at,
        Some(Main::Ended(exit)) => exit.started,
        Some(Main::Waiting) | None => None,
    };
    let finished = verdict.exit.as_ref().and_then(|e| e.finished).unwrap_or(now);
    let mut new = SandboxStatus {
        state: verdict.state,
        reason: Some(verdict.reason.into()),
        message: Some(verdict.message.clone()).filter(|m| !m.is_empty()),
        exit_code: verdict.exit.as_ref().and_then(|e| e.code),
        pod_name: pod.map(|p| p.name.clone()).or_else(|| old.pod_name.clone()),
        pod: old.pod.clone(),
        service_name: old.service_name.clone(),
        urls: old.urls.clone(),
        pod_ip: pod.and_then(|p| p.ip.clone()).or_else(|| old.pod_ip.clone()),
        node_name: pod.and_then(|p| p.node.clone()).or_else(|| old.node_name.clone()),
        started_at: started.map(Time).or_else(|| old.started_at.clone()),
        finished_at: ended.then_some(Time(finished)),
        expires_at: expires_at(o, verdict, now).map(Time),
        // A session's defaults may change later; a pod does not.
        container_image: old.container_image.clone().or_else(|| Some(o.effective.image.clone())),
        max_lifetime_seconds: Some(o.effective.lifetime),
        tags: Some(o.effective.tags.clone()).filter(|t| !t.is_empty()),
        session_uid: old.session_uid.clone().or_else(|| session_uid(o)),
        observed_generation: generation,
        conditions: old.conditions.clone(),
    };
    let mut set = |kind: &str, value: bool| {
        conditions::set(&mut new.conditions, kind, value, verdict.reason, &verdict.message, generation, now);
    };
    set(READY, verdict.state == State::Running);
    set(FINISHED, ended);
    if let Some(pod) = pod {
        let (bound, why) = match (&pod.node, &pod.unschedulable) {
            (Some(_), _) => (true, "Scheduled"),
            (None, Some(_)) => (false, reason::UNSCHEDULABLE),
            (None, None) => (false, reason::SCHEDULING),
        };
        let text = pod.unschedulable.as_deref().filter(|_| !bound).unwrap_or_default();
        conditions::set(&mut new.conditions, POD_SCHEDULED, bound, why, text, generation, now);
    }
    new
}

/// The end of the lifetime, as the kubelet counts it; once a stop has begun, the end of its grace.
fn expires_at(o: &Observed, verdict: &Verdict, now: Timestamp) -> Option<Timestamp> {
    let old = o.status.expires_at.as_ref().map(|t| t.0);
    match verdict.state {
        State::Terminating => Some(o.end_of_stop(now)),
        _ => o.end_of_lifetime().or(old),
    }
}

fn session_uid(o: &Observed) -> Option<String> {
    match o.session {
        Session::Settled(session) => session.and_then(ResourceExt::uid),
        Session::Joining { .. } | Session::Missing => None,
    }
}

/// When the status of a sandbox that has not ended was first written.
pub fn first_told(status: &SandboxStatus) -> Option<Timestamp> {
    let unfinished = status.conditions.iter().find(|c| c.type_ == FINISHED && c.status == "False");
    unfinished.map(|c| c.last_transition_time.0)
}

/// Whether `new` is worth a write: one from creation to RUNNING where all goes well and fast, and one more to the end.
///
/// * A new sandbox that just waits its turn is PENDING by the schema's default already: the first to tell is a node, or trouble.
/// * That a node has it is told when it does not run at once.
/// * A new state, reason or message is told, and that a change of the spec was seen.
/// * Once it has run, its address and the end of its lifetime are told too. Before that they, the node's name and the conditions
///   travel with the next write.
pub fn worth_writing(o: &Observed, new: &SandboxStatus, now: Timestamp) -> bool {
    let old = o.status;
    if new.reason.as_deref() == Some(reason::STARTING) && o.quiet_until(now).is_some() {
        return false;
    }
    let unwritten = old.observed_generation.is_none();
    let plain = new.state == State::Pending && matches!(new.reason.as_deref(), Some(reason::PENDING | reason::SCHEDULING));
    if unwritten && plain {
        return false;
    }
    let main = |s: &SandboxStatus| (s.state, s.reason.clone(), s.message.clone(), s.observed_generation);
    let ran = !matches!(new.state, State::Pending | State::Creating);
    main(old) != main(new) || ran && (&old.pod_ip, &old.expires_at) != (&new.pod_ip, &new.expires_at)
}
