//! What only the kubelet's events report: why a pod on a node gets no container at all. They are read seldom, and only
//! while no problem is known.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;

use super::context::{Context, Polled};
use super::observed::Observed;
use super::pod::{MainState, PodView, StartProblem, target};
use crate::api::limits::MAX_MESSAGE;
use crate::api::reason;
use crate::text::short;

/// How long a pod may be on its node before its events are read. Most run by then.
const FIRST_POLL: SignedDuration = SignedDuration::from_secs(10);
/// Least time between two polls for one pod.
const POLL_PAUSE: SignedDuration = SignedDuration::from_secs(20);

/// When the events of a pod may be read for the first time; none if they have nothing to add.
fn first_poll(o: &Observed, pod: &PodView, now: Timestamp) -> Option<Timestamp> {
    let is_silent =
        pod.main == MainState::Waiting && pod.problem.is_none() && !pod.has_final_phase && !pod.is_deleting();
    let at = pod.started_at.filter(|_| is_silent)? + FIRST_POLL;
    // A sandbox with a short start timeout must still end with its true reason.
    Some(o.end_of_start(now).map_or(at, |end| at.min(end)))
}

/// Adds to the pod the problem that its events reported last; reads them again when that is due.
pub(super) async fn complete(o: &mut Observed, polled: Option<Polled>, ctx: &Context, now: Timestamp) {
    let Some((pod, first)) = o.pod.as_ref().and_then(|pod| Some((pod, first_poll(o, pod, now)?))) else {
        return;
    };
    if now < first {
        o.poll_at = Some(first);
        return;
    }
    let (at, reported) = match polled.filter(|(at, _)| now < *at + POLL_PAUSE) {
        Some(polled) => polled,
        None => {
            let namespace = o.sandbox.namespace().unwrap_or_default();
            let events = ctx.writer.events_of(target(&namespace, pod)).await;
            // A read that fails is no reason to stop; it shows in the metrics of API calls.
            let polled = (now, events.ok().and_then(|events| problem(&events)));
            ctx.states.update(&o.sandbox.uid().unwrap_or_default(), |s| {
                s.polled = Some(polled.clone())
            });
            polled
        }
    };
    o.poll_at = Some(at + POLL_PAUSE);
    if let Some(pod) = o.pod.as_mut() {
        pod.problem = reported;
    }
}

/// The problem that the events report. The newest decides, since every step that succeeds makes an event too.
pub(super) fn problem(events: &[Event]) -> Option<StartProblem> {
    let newest = events
        .iter()
        .max_by_key(|e| (seen_at(e), e.type_.as_deref() == Some("Normal")))?;
    let own = match newest.reason.as_deref()? {
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => reason::VOLUME_NOT_READY,
        // The node lacks a runtime handler or user namespaces, for instance.
        "FailedCreatePodSandBox" => reason::START_ERROR,
        _ => return None,
    };
    Some(StartProblem {
        reason: own,
        message: short(newest.message.as_deref().unwrap_or_default(), MAX_MESSAGE),
        is_fatal: false,
    })
}

fn seen_at(event: &Event) -> Option<Timestamp> {
    let series = event
        .series
        .as_ref()
        .and_then(|s| s.last_observed_time.as_ref())
        .map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    series.or(last).or(event.event_time.as_ref().map(|t| t.0))
}
