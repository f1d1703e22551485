//! How many log searches a tenant may run at once: finding the last lines of a log reads much to return little.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Request;

/// A tenant's permits to search logs for their last lines.
#[derive(Clone)]
pub(crate) struct LogSearchPermits(Arc<Semaphore>);

/// Allows one search until it is dropped.
pub(crate) type LogSearchPermit = OwnedSemaphorePermit;

impl LogSearchPermits {
    /// Permits for `at_once` searches.
    pub(crate) fn new(at_once: usize) -> LogSearchPermits {
        LogSearchPermits(Arc::new(Semaphore::new(at_once)))
    }

    /// Those of a request's tenant; `None` without an [`AuthLayer`](crate::gateway::edge::auth::AuthLayer).
    pub(crate) fn of<T>(request: &Request<T>) -> Option<LogSearchPermits> {
        request.extensions().get().cloned()
    }

    /// Waits for a permit. `None` only without permits to wait for.
    pub(crate) async fn acquire(permits: Option<&LogSearchPermits>) -> Option<LogSearchPermit> {
        // The semaphore is never closed.
        permits?.0.clone().acquire_owned().await.ok()
    }
}
