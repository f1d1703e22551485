//! What is known of each object beyond the caches, which may lag behind our own writes.

use kube::runtime::watcher::Event;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Informer, Watched};

/// One value per object, by UID. A default value takes no memory.
pub(crate) struct States<S>(Arc<Mutex<HashMap<String, S>>>);

impl<S> Clone for States<S> {
    fn clone(&self) -> States<S> {
        States(self.0.clone())
    }
}

impl<S> States<S> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, S>> {
        // A panic elsewhere leaves a consistent map: every change is a single insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// States of the objects of an informer. Each is dropped when its object is gone.
    pub(crate) fn of<K: Watched>(informer: &Informer<K>) -> States<S>
    where
        S: Send + 'static,
    {
        let states = States(Arc::default());
        let (dropped, store) = (states.clone(), informer.store());
        informer.subscribe(move |event| match event {
            Event::Delete(object) => drop(dropped.lock().remove(object.meta().uid.as_deref().unwrap_or_default())),
            // Deletions may have been missed.
            Event::InitDone => {
                let known: HashSet<String> = store.state().iter().filter_map(|o| o.meta().uid.clone()).collect();
                dropped.lock().retain(|uid, _| known.contains(uid));
            }
            Event::Apply(_) | Event::InitApply(_) | Event::Init => {}
        });
        states
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}

impl<S: Clone + Default + PartialEq> States<S> {
    /// A copy of the state of an object.
    pub(crate) fn get(&self, uid: &str) -> S {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    /// Changes the state of an object.
    pub(crate) fn update(&self, uid: &str, change: impl FnOnce(&mut S)) {
        let mut states = self.lock();
        let state = states.entry(uid.into()).or_default();
        change(state);
        if *state == S::default() {
            states.remove(uid);
        }
    }
}
