//! The result of the check, shared with reconciles.

use std::sync::{Arc, Mutex, PoisonError};

use super::network_view::NetworkView;
use crate::network_check::Enforcement;
use crate::resources::settings::EnforcementMode;

type Subscriber = Box<dyn Fn() + Send + Sync>;

/// The current result, and the subscribers to changes that affect waiting sandboxes.
#[derive(Clone)]
pub(crate) struct NetworkStatus(Arc<Inner>);

struct Inner {
    view: Mutex<NetworkView>,
    subscribers: Mutex<Vec<Subscriber>>,
}

impl NetworkStatus {
    /// The status before the first check.
    pub(crate) fn new(mode: EnforcementMode) -> NetworkStatus {
        NetworkStatus(Arc::new(Inner {
            view: Mutex::new(NetworkView::new(mode)),
            subscribers: Mutex::default(),
        }))
    }

    /// The current result.
    pub(crate) fn view(&self) -> NetworkView {
        self.0.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls `subscriber` when sandboxes that wait for the result can start, or now wait for another reason.
    pub(crate) fn subscribe(&self, subscriber: impl Fn() + Send + Sync + 'static) {
        let mut subscribers = self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Box::new(subscriber));
    }

    pub(super) fn set(&self, known: Option<(Enforcement, &str)>) {
        let (before, after) = {
            let mut view = self.0.view.lock().unwrap_or_else(PoisonError::into_inner);
            let before = view.hold();
            view.known = known.map(|(result, message)| (result, message.into()));
            (before, view.hold())
        };
        if before != after {
            let subscribers = self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.iter().for_each(|subscriber| subscriber());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn sandboxes_are_reconciled_when_what_holds_them_changes() {
        let calls = Arc::<AtomicUsize>::default();
        for (mode, expected) in [
            (EnforcementMode::Require, [1, 1, 2, 3]),
            (EnforcementMode::Warn, [0; 4]),
        ] {
            let status = NetworkStatus::new(mode);
            calls.store(0, Ordering::Relaxed);
            let counted = calls.clone();
            status.subscribe(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            let reports = [
                Some((Enforcement::NotEnforced, "a")),
                Some((Enforcement::NotEnforced, "a")),
                Some((Enforcement::Enforced, "b")),
                None,
            ];
            let seen = reports.map(|report| {
                status.set(report);
                calls.load(Ordering::Relaxed)
            });
            assert_eq!(seen, expected, "{mode:?}");
        }
    }
}
