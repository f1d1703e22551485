//! Reconciles the objects of one kind.

use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use kube::runtime::controller::{Action as Requeue, Config, ReconcileRequest, applier};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::{Informer, Queue, States, Watched, informer};
use crate::operator::error::Error;
use crate::operator::metrics::Metrics;

/// After so many conflicts in a row, an object's conflicts are logged as warnings.
const MANY_CONFLICTS: u32 = 5;

/// The controller of one kind.
pub(crate) struct Controller<K: Watched, C, S, F> {
    pub informer: Informer<K>,
    pub queue: Queue<K>,
    pub reconcile: fn(Arc<K>, Arc<C>) -> F,
    pub context: Arc<C>,
    /// What it knows of each object; also in `context`.
    pub states: States<S>,
    /// Reconciles at once. Never two of one object.
    pub concurrency: u16,
}

/// A controller that can run.
pub(super) struct Running<K: Watched, C, S, F> {
    controller: Controller<K, C, S, F>,
    metrics: Metrics,
    backoff: Backoff,
}

impl<K, C, S, F> Running<K, C, S, F>
where
    K: Watched,
    C: Send + Sync + 'static,
    S: Send + 'static,
    F: Future<Output = Result<Requeue, Error>> + Send + 'static,
{
    pub(super) fn new(controller: Controller<K, C, S, F>, metrics: Metrics) -> Arc<Self> {
        let backoff = Backoff::new(&controller.informer);
        Arc::new(Running {
            controller,
            metrics,
            backoff,
        })
    }

    /// Reconciles every object, and again whatever is triggered, until `stop`; then ends what is under way.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Another replica may have led meanwhile: what we knew of our own writes is out of date.
        self.controller.states.clear();
        let (kind, store) = (informer::kind::<K>(), self.controller.informer.store());
        let triggered = self.controller.queue.open();
        self.controller.queue.push_all(&store);
        let triggers = futures::stream::unfold(triggered, |mut t| async { t.next().await.map(|object| (object, t)) });
        let triggers = triggers
            .take_until(stop.cancelled_owned())
            .map(|object| Ok::<_, std::convert::Infallible>(ReconcileRequest::from(object)));
        let reconcile = |object: Arc<K>, running: Arc<Self>| async move { running.reconcile(object).await }.boxed();
        let failed = move |object: Arc<K>, error: &Error, running: Arc<Self>| {
            let pause = running.failed(kind, object.as_ref(), error);
            Requeue::requeue(pause)
        };
        let config = Config::default().concurrency(self.controller.concurrency);
        applier(reconcile, failed, self.clone(), store, Box::pin(triggers), config)
            .for_each(|_| std::future::ready(()))
            .await;
    }

    async fn reconcile(&self, object: Arc<K>) -> Result<Requeue, Error> {
        let (start, uid) = (Instant::now(), object.uid().unwrap_or_default());
        let in_flight = self.metrics.reconcile_started();
        let run = (self.controller.reconcile)(object, self.controller.context.clone());
        // kube re-raises a panic, which would end the controller for all objects.
        let result = match AssertUnwindSafe(run).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(Error::Panic(panic_text(panic.as_ref()))),
        };
        drop(in_flight);
        let reason = result.as_ref().err().map(Error::reason);
        self.metrics.reconciled(informer::kind::<K>(), start.elapsed(), reason);
        if result.is_ok() {
            self.backoff.reset(&uid);
        }
        result
    }

    fn failed(&self, kind: &'static str, object: &K, error: &Error) -> Duration {
        let is_conflict = error.is_conflict();
        let (failures, pause) = self.backoff.failed(&object.uid().unwrap_or_default(), is_conflict);
        let (name, namespace) = (object.name_any(), object.namespace());
        let error = crate::telemetry::chain(error);
        if is_conflict && failures < MANY_CONFLICTS {
            // Somebody else wrote the object after we read it, which is normal; the next attempt sees the change.
            tracing::debug!(
                kind,
                object = name,
                namespace,
                error,
                ?pause,
                "conflict; reconciling again"
            );
        } else {
            tracing::warn!(
                kind,
                object = name,
                namespace,
                error,
                ?pause,
                failures,
                "reconcile failed"
            );
        }
        pause
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".into())
}
