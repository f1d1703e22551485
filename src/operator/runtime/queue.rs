//! Where triggers go.

use kube::runtime::reflector::{ObjectRef, Store};
use prometheus_client::metrics::gauge::Gauge;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Watched;

/// The queue of a controller. While the controller does not run, triggers are dropped: it begins with everything.
pub(crate) struct Queue<K: Watched> {
    open: Arc<Mutex<Option<UnboundedSender<ObjectRef<K>>>>>,
    depth: Gauge,
}

impl<K: Watched> Clone for Queue<K> {
    fn clone(&self) -> Queue<K> {
        Queue {
            open: self.open.clone(),
            depth: self.depth.clone(),
        }
    }
}

impl<K: Watched> Queue<K> {
    pub(super) fn new(depth: Gauge) -> Queue<K> {
        Queue {
            open: Arc::default(),
            depth,
        }
    }

    /// Triggers a reconcile of an object. Duplicates are merged until it begins.
    pub(crate) fn push(&self, object: ObjectRef<K>) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|queue| queue.send(object).is_ok()) {
            self.depth.inc();
        }
    }

    pub(super) fn push_all(&self, store: &Store<K>) {
        store
            .state()
            .iter()
            .for_each(|object| self.push(ObjectRef::from_obj(object.as_ref())));
    }

    /// Opens the queue. It is closed when the returned receiver is dropped.
    pub(super) fn open(&self) -> Triggered<K> {
        let (sender, receiver) = unbounded_channel();
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        Triggered {
            receiver,
            queue: self.clone(),
        }
    }
}

/// The receiving end of an open queue.
pub(super) struct Triggered<K: Watched> {
    receiver: UnboundedReceiver<ObjectRef<K>>,
    queue: Queue<K>,
}

impl<K: Watched> Triggered<K> {
    pub(super) async fn next(&mut self) -> Option<ObjectRef<K>> {
        let object = self.receiver.recv().await?;
        self.queue.depth.dec();
        Some(object)
    }
}

impl<K: Watched> Drop for Triggered<K> {
    fn drop(&mut self) {
        *self.queue.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        while self.receiver.try_recv().is_ok() {
            self.queue.depth.dec();
        }
    }
}
