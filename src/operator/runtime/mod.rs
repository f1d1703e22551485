//! Controllers for any kind: informers with caches, queues, reconciles with backoff. `kinds.rs` lists the kinds.
//!
//! A controller runs only while this replica leads. Informers always run, so that a new leader has warm caches.

mod backoff;
mod controller;
mod informer;
mod queue;
mod states;
mod watched;

use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::backoff::jitter;
pub(crate) use self::controller::Controller;
pub(crate) use self::informer::Informer;
pub(crate) use self::queue::Queue;
pub(crate) use self::states::States;
pub(crate) use self::watched::Watched;

use super::events::Events;
use super::metrics::Metrics;
use crate::kube::ApiClient;

type Hook = Arc<dyn Fn() + Send + Sync>;
type Run = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// The informers and controllers of one namespace, or of all.
pub(crate) struct Runtime {
    client: ApiClient,
    namespace: Option<String>,
    events: Events,
    metrics: Metrics,
    watches: Vec<BoxFuture<'static, ()>>,
    caches: Vec<Cache>,
    on_start: Vec<Hook>,
    controllers: Vec<Run>,
}

/// The size of a cache, and whether its first list is complete.
#[derive(Clone)]
pub(crate) struct Cache {
    pub kind: &'static str,
    pub len: Arc<dyn Fn() -> usize + Send + Sync>,
    pub ready: Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>,
}

impl Runtime {
    /// A runtime without kinds. `namespace` is `None` for all namespaces.
    pub(crate) fn new(client: ApiClient, namespace: Option<String>, events: Events, metrics: Metrics) -> Runtime {
        Runtime {
            client,
            namespace,
            events,
            metrics,
            watches: vec![],
            caches: vec![],
            on_start: vec![],
            controllers: vec![],
        }
    }

    /// Adds a cache of a kind. `labels` is a label selector, empty for all objects; `slim` drops the fields that nobody
    /// reads.
    pub(crate) fn informer<K: Watched>(&mut self, labels: &str, slim: fn(&mut K)) -> Informer<K> {
        let (informer, writer) = Informer::new();
        let watch = informer::run(
            self.client.clone(),
            self.namespace.clone(),
            labels.to_owned(),
            writer,
            slim,
            self.events.clone(),
            informer.clone(),
        );
        self.watches.push(watch.boxed());
        let (store, ready) = (informer.store(), informer.store());
        self.caches.push(Cache {
            kind: informer::kind::<K>(),
            len: Arc::new(move || store.len()),
            ready: Arc::new(move || {
                let store = ready.clone();
                // An error means that the watch ended, which ends the process elsewhere.
                async move { drop(store.wait_until_ready().await) }.boxed()
            }),
        });
        informer
    }

    /// A queue for a controller of `K`.
    pub(crate) fn queue<K: Watched>(&self) -> Queue<K> {
        Queue::new(self.metrics.queue_depth(informer::kind::<K>()))
    }

    /// Adds a controller. Changes of its own kind trigger it; [`Triggers::on`] adds further triggers.
    pub(crate) fn controller<K: Watched, C: Send + Sync + 'static, S: Send + 'static, F>(
        &mut self,
        controller: Controller<K, C, S, F>,
    ) -> Triggers<K>
    where
        F: Future<Output = Result<kube::runtime::controller::Action, super::error::Error>> + Send + 'static,
    {
        let triggers = Triggers {
            queue: controller.queue.clone(),
            informer: controller.informer.clone(),
        };
        let controller = controller::Running::new(controller, self.metrics.clone());
        self.controllers
            .push(Arc::new(move |stop| controller.clone().run(stop).boxed()));
        let own = triggers.informer.clone();
        triggers.on(&own, |object| vec![ObjectRef::from_obj(object)])
    }

    /// Calls `hook` whenever the controllers start, before they do.
    pub(crate) fn on_start(&mut self, hook: impl Fn() + Send + Sync + 'static) {
        self.on_start.push(Arc::new(hook));
    }

    /// Splits off what runs: the watches, the caches they fill, and the controllers.
    pub(crate) fn into_parts(self) -> (Vec<BoxFuture<'static, ()>>, Vec<Cache>, Controllers) {
        (
            self.watches,
            self.caches,
            Controllers {
                on_start: self.on_start,
                run: self.controllers,
            },
        )
    }
}

/// The triggers of a controller.
pub(crate) struct Triggers<K: Watched> {
    queue: Queue<K>,
    informer: Informer<K>,
}

impl<K: Watched> Triggers<K> {
    /// Reconciles what `map` returns for each object of `T` that is new, changed or gone. After a restart of the watch
    /// everything is reconciled, since deletions may have been missed.
    pub(crate) fn on<T: Watched>(
        self,
        informer: &Informer<T>,
        map: impl Fn(&T) -> Vec<ObjectRef<K>> + Send + Sync + 'static,
    ) -> Triggers<K> {
        let (queue, store) = (self.queue.clone(), self.informer.store());
        informer.subscribe(move |event| match event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                map(object).into_iter().for_each(|o| queue.push(o))
            }
            Event::InitDone => queue.push_all(&store),
            Event::Init => {}
        });
        self
    }
}

/// All controllers. They can run, end and run again: once per term as leader.
#[derive(Clone)]
pub(crate) struct Controllers {
    on_start: Vec<Hook>,
    run: Vec<Run>,
}

impl Controllers {
    /// Runs until all have ended after `stop`, or until the first ends by itself.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        self.on_start.iter().for_each(|hook| hook());
        let mut running: FuturesUnordered<_> = self.run.iter().map(|run| run(stop.clone())).collect();
        while running.next().await.is_some() && stop.is_cancelled() {}
    }
}

/// Waits for the first list of every kind.
pub(crate) async fn ready(caches: &[Cache]) {
    join_all(caches.iter().map(|c| (c.ready)())).await;
}

#[cfg(test)]
mod tests;
