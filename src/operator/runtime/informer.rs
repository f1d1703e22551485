//! A cache of one kind, and those who are notified of its changes.

use kube::Resource;
use kube::core::PartialObjectMetaExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use super::Watched;
use crate::api::reason;
use crate::kube::{ApiClient, readable};
use crate::operator::events::Events;

type Subscriber<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

/// A cache that a watch keeps up to date.
pub(crate) struct Informer<K: Watched> {
    store: Store<K>,
    subscribers: Arc<Mutex<Vec<Subscriber<K>>>>,
}

impl<K: Watched> Clone for Informer<K> {
    fn clone(&self) -> Informer<K> {
        Informer {
            store: self.store.clone(),
            subscribers: self.subscribers.clone(),
        }
    }
}

impl<K: Watched> Informer<K> {
    pub(super) fn new() -> (Informer<K>, reflector::store::Writer<K>) {
        let (store, writer) = reflector::store();
        let subscribers = Arc::default();
        (Informer { store, subscribers }, writer)
    }

    /// The cache.
    pub(crate) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    #[cfg(test)]
    pub(super) fn notify(&self, event: &Event<K>) {
        let subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.iter().for_each(|subscriber| subscriber(event));
    }

    /// Calls `subscriber` with every event, after the cache was updated. Has no effect once the watch runs.
    pub(crate) fn subscribe(&self, subscriber: impl Fn(&Event<K>) + Send + Sync + 'static) {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(subscriber));
    }
}

/// Watches until the end of the process. Unreadable objects are skipped, pods and policies too: anyone who may create
/// one can give it our labels.
pub(super) async fn run<K: Watched>(
    client: ApiClient,
    namespace: Option<String>,
    labels: String,
    mut writer: reflector::store::Writer<K>,
    slim: fn(&mut K),
    events: Events,
    informer: Informer<K>,
) {
    let subscribers = std::mem::take(&mut *informer.subscribers.lock().unwrap_or_else(PoisonError::into_inner));
    let handle = |event| {
        let event = readable(event, |unreadable| {
            let object = unreadable.metadata.clone().into_request_partial::<K>();
            events.warn(&object, reason::INVALID_SPEC, &unreadable.error);
        });
        if let Some(mut event) = event {
            if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &mut event {
                slim(object);
            }
            writer.apply_watcher_event(&event);
            subscribers.iter().for_each(|subscriber| subscriber(&event));
        }
    };
    client.watch(namespace.as_deref(), &labels, handle).await;
}

/// The kind's name.
pub(super) fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        Cow::Borrowed(kind) => kind,
        // Our kinds are all static.
        Cow::Owned(_) => "",
    }
}
