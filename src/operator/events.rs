//! Events about objects. Best effort: a reconcile never waits for one.

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::time::Duration;
use tokio::sync::mpsc;

use super::metrics::Metrics;
use crate::api::MANAGER;
use crate::kube::ApiClient;
use crate::text::short;

/// Most events that wait to be published. `Recorder` searches its whole cache for each, so they must not pile up.
const CAPACITY: usize = 256;
/// Of these, the part that normal events may take: under load, warnings come first.
const CAPACITY_FOR_NORMAL: usize = CAPACITY / 2;
/// Longest note in bytes; the API's limit is 1 KiB.
const MAX_NOTE: usize = 1000;
/// Longest wait for the API server to accept an event.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Passes events to the task that publishes them.
#[derive(Clone)]
pub(crate) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
    metrics: Metrics,
}

impl Events {
    /// Starts the publishing task. It ends when the last handle is dropped.
    pub(crate) fn start(client: ApiClient, metrics: Metrics, instance: &str) -> Events {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(CAPACITY);
        let client = client.with_timeout(TIMEOUT);
        let recorder = Recorder::new(
            client.inner().clone(),
            Reporter {
                controller: MANAGER.into(),
                instance: Some(instance.into()),
            },
        );
        tokio::spawn(async move {
            while let Some((event, object)) = waiting.recv().await {
                if let Err(error) = client
                    .call("publish", "Event", recorder.publish(&event, &object).boxed())
                    .await
                {
                    tracing::debug!(error = crate::telemetry::chain(&error), "event not published");
                }
            }
        });
        Events { queue, metrics }
    }

    /// A normal event about an object. Dropped and counted while many events wait.
    pub(crate) fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        if self.queue.capacity() > CAPACITY - CAPACITY_FOR_NORMAL {
            self.send(object, EventType::Normal, reason, note);
        } else {
            self.metrics.events_dropped.inc();
        }
    }

    /// A warning about an object. Dropped and counted while the queue is full.
    pub(crate) fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.send(object, EventType::Warning, reason, note);
    }

    fn send<K: Resource<DynamicType = ()>>(&self, object: &K, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.into(),
            note: Some(short(note, MAX_NOTE)).filter(|n| !n.is_empty()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if self.queue.try_send((event, object.object_ref(&()))).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Sandbox, SandboxSpec};

    #[test]
    fn under_load_normal_events_are_dropped_first_and_drops_are_counted() {
        let metrics = Metrics::default();
        let (queue, mut waiting) = mpsc::channel(CAPACITY);
        let events = Events {
            queue,
            metrics: metrics.clone(),
        };
        let sandbox = Sandbox::new("a", SandboxSpec::default());
        for _ in 0..CAPACITY {
            events.normal(&sandbox, "Completed", "");
        }
        assert_eq!(
            metrics.events_dropped.get(),
            u64::try_from(CAPACITY - CAPACITY_FOR_NORMAL).unwrap()
        );
        for _ in 0..CAPACITY {
            events.warn(&sandbox, "Failed", "");
        }
        assert_eq!(metrics.events_dropped.get(), u64::try_from(CAPACITY).unwrap());
        let mut types = vec![];
        while let Ok((event, _)) = waiting.try_recv() {
            types.push(matches!(event.type_, EventType::Warning));
        }
        assert_eq!(
            (types.len(), types.iter().filter(|warning| **warning).count()),
            (CAPACITY, CAPACITY - CAPACITY_FOR_NORMAL)
        );
    }
}
