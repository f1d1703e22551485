//! Memory for large request and response bodies. A call reserves it from its tenant's share and from the replica's
//! total.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Status};

use crate::gateway::error::rate_limited;

/// Longest wait for a reservation.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bodies up to this size need no reservation.
pub(crate) const SMALL_BODY: usize = 256 << 10;

/// The budget for large bodies of one call. What it reserved is released with its last clone.
#[derive(Clone)]
pub(crate) struct BodyBudget {
    tenant: Arc<Semaphore>,
    tenant_limit: u32,
    total: Arc<Semaphore>,
    reserved: Arc<Mutex<Reserved>>,
}

#[derive(Default)]
struct Reserved {
    request: Option<Reservation>,
    response: Option<Reservation>,
}

struct Reservation {
    tenant: OwnedSemaphorePermit,
    total: OwnedSemaphorePermit,
}

impl BodyBudget {
    /// A budget of which nothing is reserved. `tenant` and `total` hold a permit per byte; `tenant_limit` is all that
    /// `tenant` ever has.
    pub(crate) fn new(tenant: Arc<Semaphore>, tenant_limit: u32, total: Arc<Semaphore>) -> BodyBudget {
        BodyBudget {
            tenant,
            tenant_limit,
            total,
            reserved: Arc::default(),
        }
    }

    /// The budget of a request; `None` without the authentication layer.
    pub(crate) fn of<T>(request: &Request<T>) -> Option<BodyBudget> {
        request.extensions().get().cloned()
    }

    /// Reserves memory for a message of the request. Replaces the reservation of the message before it, which was
    /// passed on.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if other calls hold the memory for too long.
    pub(crate) async fn reserve_request(self, bytes: usize) -> Result<(), Status> {
        self.release_request();
        if bytes > SMALL_BODY {
            let reservation = self.acquire(bytes, MAX_WAIT).await?;
            self.reserved().request = Some(reservation);
        }
        Ok(())
    }

    /// Reserves memory for a response that has grown to `bytes`, twice: encoding copies it. Small responses need none.
    /// Waits at most `wait`.
    ///
    /// # Errors
    /// As [`BodyBudget::reserve_request`].
    pub(crate) async fn reserve_response(
        budget: Option<&BodyBudget>,
        bytes: usize,
        wait: Duration,
    ) -> Result<(), Status> {
        let Some(budget) = budget.filter(|_| bytes > SMALL_BODY) else {
            return Ok(());
        };
        let limit = budget.tenant_limit as usize;
        let have = budget
            .reserved()
            .response
            .as_ref()
            .map_or(0, |r| r.tenant.num_permits());
        let wanted = 2 * bytes;
        if wanted <= have || have >= limit {
            return Ok(());
        }
        // Doubles, so that a response that grows in small steps does not reserve at each of them.
        let more = budget.acquire(wanted.max(2 * have).min(limit) - have, wait).await?;
        let mut reserved = budget.reserved();
        match &mut reserved.response {
            Some(response) => {
                response.tenant.merge(more.tenant);
                response.total.merge(more.total);
            }
            none => *none = Some(more),
        }
        Ok(())
    }

    /// The last message of the request was passed on.
    pub(crate) fn release_request(&self) {
        self.reserved().request = None;
    }

    /// The response is no longer in memory.
    pub(crate) fn release_response(&self) {
        self.reserved().response = None;
    }

    /// Takes from the tenant's share first, so that a tenant that waits for itself delays nobody else.
    async fn acquire(&self, bytes: usize, wait: Duration) -> Result<Reservation, Status> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.tenant_limit);
        let both = async {
            let tenant = self.tenant.clone().acquire_many_owned(bytes).await.ok()?;
            let total = self.total.clone().acquire_many_owned(bytes).await.ok()?;
            Some(Reservation { tenant, total })
        };
        let both = tokio::time::timeout(wait, both).await;
        both.ok()
            .flatten()
            .ok_or_else(|| rate_limited("too many large bodies at once"))
    }

    fn reserved(&self) -> MutexGuard<'_, Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
