//! What only the kubelet's events tell: why a pod on a node gets no container at all. They are asked for, seldom, while nothing else is known.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;

use super::observed::{Main, Observed, PodView, Trouble};
use super::target;
use crate::api::reason;
use crate::operator::context::Context;

/// When a pod's events were asked for, and the trouble that they told.
pub type Asked = (Timestamp, Option<Trouble>);

/// How long a pod may be on its node before its events are asked for. Most run by then.
const PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// Least time between two questions about one pod.
const PAUSE: SignedDuration = SignedDuration::from_secs(20);

/// When the events of a pod may be asked for the first time; none if they can tell nothing.
fn first(o: &Observed, pod: &PodView) -> Option<Timestamp> {
    let silent = pod.main == Main::Waiting && pod.trouble.is_none() && !pod.ended && !pod.deleting;
    let at = pod.started.filter(|_| silent)? + PATIENCE;
    // A sandbox with little time to start shall still end with its true reason.
    Some(o.end_of_start().map_or(at, |end| at.min(end)))
}

/// Completes what the pod tells by what its events told last; asks them anew when it is time.
pub async fn complete(o: &mut Observed<'_>, asked: Option<Asked>, ctx: &Context, now: Timestamp) {
    let Some((pod, first)) = o.pod.as_ref().and_then(|pod| Some((pod, first(o, pod)?))) else {
        return;
    };
    if now < first {
        o.look_again = Some(first);
        return;
    }
    let (at, told) = match asked.filter(|(at, _)| now < *at + PAUSE) {
        Some(asked) => asked,
        None => {
            let namespace = o.sandbox.namespace().unwrap_or_default();
            let events = ctx.writer.events_of(target(&namespace, pod)).await;
            // Not being told is no reason to stop; the metrics of calls show it.
            let asked = (now, events.ok().and_then(|events| trouble(&events)));
            ctx.memory.note(&o.sandbox.uid().unwrap_or_default(), |n| n.asked = Some(asked.clone()));
            asked
        }
    };
    o.look_again = Some(at + PAUSE);
    if let Some(pod) = o.pod.as_mut() {
        pod.trouble = told;
    }
}

/// The trouble that the events tell: the newest decides, since everything that succeeds makes one too.
pub fn trouble(events: &[Event]) -> Option<Trouble> {
    let newest = events.iter().max_by_key(|e| (seen(e), e.type_.as_deref() == Some("Normal")))?;
    let own = match newest.reason.as_deref()? {
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => reason::VOLUME_NOT_READY,
        // A runtime handler or a user namespace that the node does not have, for instance.
        "FailedCreatePodSandBox" => reason::START_ERROR,
        _ => return None,
    };
    Some(Trouble {
        reason: own,
        message: newest.message.clone().unwrap_or_default(),
        fatal: false,
    })
}

fn seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let last = event.last_timestamp.as_ref().map(|t| t.0);
    series.or(last).or(event.event_time.as_ref().map(|t| t.0))
}
