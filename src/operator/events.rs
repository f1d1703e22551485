//! Events for what a user acts on: best effort, never in the way of a reconcile.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use std::time::Duration;
use tokio::sync::mpsc;

use super::metrics::Metrics;
use crate::api::MANAGER;
use crate::text::short;

/// Most events that wait; `Recorder` looks through its whole cache for each, so a flood must not pile up.
const WAITING: usize = 256;
/// Longest text of an event, in bytes; the API's limit is 1 KiB.
const LONGEST: usize = 1000;

/// Hands events to the task that publishes them.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Metrics,
}

impl Events {
    /// Starts the publishing task; it ends when the last handle is dropped.
    pub fn start(client: Client, metrics: Metrics, instance: &str) -> Events {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(WAITING);
        let recorder = Recorder::new(
            client,
            Reporter {
                controller: MANAGER.into(),
                instance: Some(instance.into()),
            },
        );
        tokio::spawn(async move {
            while let Some((event, object)) = waiting.recv().await {
                match tokio::time::timeout(Duration::from_secs(5), recorder.publish(&event, &object)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "event not published"),
                    Err(_) => tracing::debug!("event not published: no answer"),
                }
            }
        });
        Events { queue, metrics }
    }

    /// A warning about an object.
    pub fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(short(note, LONGEST)),
            action: "Reconcile".into(),
            secondary: None,
        };
        if self.queue.try_send((event, object.object_ref(&()))).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}
