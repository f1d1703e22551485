//! Memory for large request and response bodies. A call reserves it from its tenant's share and from the replica's
//! total. Memory that a call has held for long is revoked when others wait for it, so neither a stalled client nor a
//! stalled sandbox can hold it indefinitely.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::gateway::error::rate_limited;

/// Longest wait for a reservation.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bodies up to this size need no reservation.
pub(crate) const SMALL_BODY: usize = 16 << 10;
/// Maximum duration of the transfer of a large body, from its reservation on.
pub(crate) const MAX_TRANSFER: Duration = Duration::from_secs(120);
/// How long the transfer of a large body may stall. Beyond that it must keep up [`MIN_RATE`], since other calls wait for
/// its memory.
const MAX_STALL: Duration = Duration::from_secs(10);
/// Bytes per second.
const MIN_RATE: usize = 256 << 10;
/// How long a call holds memory for which others wait.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// Interval at which a waiting call checks for memory that was held for too long.
const REVOKE_INTERVAL: Duration = Duration::from_secs(1);
/// Time that a handler has to release revoked memory before its call is ended.
const GRACE: Duration = Duration::from_secs(2);
/// Number of calls in the list of holders at which ended ones are first removed.
const MIN_HOLDERS: usize = 256;

/// The time by which further bytes of a large body must arrive, after `arrived` bytes have.
pub(crate) fn transfer_time(arrived: usize) -> Duration {
    (MAX_STALL + Duration::from_secs((arrived / MIN_RATE) as u64)).min(MAX_TRANSFER)
}

/// The memory of this replica.
pub(crate) struct BodyMemory {
    total: Arc<Semaphore>,
    tenant_limit: u32,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    calls: Vec<Weak<Call>>,
    /// The length at which ended calls are removed.
    prune_at: usize,
}

impl BodyMemory {
    /// Memory of `bytes`, of which each tenant gets at most half.
    pub(crate) fn new(bytes: u32) -> Arc<BodyMemory> {
        Arc::new(BodyMemory {
            total: Arc::new(Semaphore::new(bytes as usize)),
            tenant_limit: bytes / 2,
            holders: Mutex::default(),
        })
    }

    /// The maximum of one tenant.
    pub(crate) fn tenant_limit(&self) -> u32 {
        self.tenant_limit
    }

    /// Bytes that are not reserved.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.total.available_permits()
    }

    fn add_holder(&self, call: &Arc<Call>) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if holders.calls.len() >= holders.prune_at {
            holders.calls.retain(|call| call.strong_count() > 0);
            holders.prune_at = (2 * holders.calls.len()).max(MIN_HOLDERS);
        }
        holders.calls.push(Arc::downgrade(call));
    }

    /// Revokes about `bytes` from the calls that have held memory for the longest time, beyond [`MAX_HOLD`].
    fn revoke(&self, bytes: usize, is_candidate: impl Fn(&Call) -> bool) {
        let now = Instant::now();
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old: Vec<(Instant, usize, Arc<Call>)> = holders
            .calls
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|call| is_candidate(call) && !call.revoked.is_cancelled())
            .filter_map(|call| {
                let (since, held) = call.reserved().held()?;
                (now.duration_since(since) >= MAX_HOLD).then_some((since, held, call))
            })
            .collect();
        old.sort_by_key(|(since, ..)| *since);
        let mut revoked = 0;
        for (_, held, call) in old {
            if revoked >= bytes {
                break;
            }
            revoked += held;
            call.revoked.cancel();
        }
    }
}

/// The budget for large bodies of one call. What it reserved is released with its last clone.
#[derive(Clone)]
pub(crate) struct BodyBudget {
    memory: Arc<BodyMemory>,
    call: Arc<Call>,
}

struct Call {
    tenant: Arc<Semaphore>,
    reserved: Mutex<Reserved>,
    revoked: CancellationToken,
}

impl Call {
    fn reserved(&self) -> MutexGuard<'_, Reserved> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Reserved {
    request: Option<Reservation>,
    response: Option<Reservation>,
    /// When the call began to hold memory; `None` if it holds none.
    since: Option<Instant>,
    /// Whether the call is in the list of holders.
    is_listed: bool,
}

impl Reserved {
    fn held(&self) -> Option<(Instant, usize)> {
        let both = [&self.request, &self.response];
        Some((self.since?, both.into_iter().flatten().map(Reservation::bytes).sum()))
    }

    fn part(&mut self, part: Part) -> &mut Option<Reservation> {
        match part {
            Part::Request => &mut self.request,
            Part::Response => &mut self.response,
        }
    }

    fn release(&mut self, part: Part) {
        *self.part(part) = None;
        if self.request.is_none() && self.response.is_none() {
            self.since = None;
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Request,
    Response,
}

struct Reservation {
    tenant: OwnedSemaphorePermit,
    total: OwnedSemaphorePermit,
}

impl Reservation {
    fn bytes(&self) -> usize {
        self.tenant.num_permits()
    }
}

impl BodyBudget {
    /// A budget without reservations. `tenant` has a permit per byte.
    pub(crate) fn new(tenant: Arc<Semaphore>, memory: Arc<BodyMemory>) -> BodyBudget {
        BodyBudget {
            memory,
            call: Arc::new(Call {
                tenant,
                reserved: Mutex::default(),
                revoked: CancellationToken::new(),
            }),
        }
    }

    /// The budget of a request; `None` without the authentication layer.
    pub(crate) fn of<T>(request: &Request<T>) -> Option<BodyBudget> {
        request.extensions().get().cloned()
    }

    /// Reserves memory for a message of the request.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if other calls hold the memory for too long.
    pub(crate) async fn reserve_request(self, bytes: usize) -> Result<(), Status> {
        if bytes <= SMALL_BODY {
            return Ok(());
        }
        self.grow(Part::Request, |_| bytes, MAX_WAIT).await
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
        match budget.filter(|_| bytes > SMALL_BODY) {
            // Doubles, so that a response that grows in small steps does not reserve at each of them.
            Some(budget) => {
                let wanted = |have| {
                    if 2 * bytes > have {
                        (2 * bytes).max(2 * have)
                    } else {
                        have
                    }
                };
                budget.grow(Part::Response, wanted, wait).await
            }
            None => Ok(()),
        }
    }

    /// The last message of the request was passed on.
    pub(crate) fn release_request(&self) {
        self.call.reserved().release(Part::Request);
    }

    /// The response is no longer in memory.
    pub(crate) fn release_response(&self) {
        self.call.reserved().release(Part::Response);
    }

    /// Completes when others wait for what this call has held for too long.
    pub(crate) async fn revoked(budget: Option<&BodyBudget>) {
        match budget {
            Some(budget) => budget.call.revoked.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Completes if the call's handler does not release revoked memory in time: the call must then end with this
    /// status.
    pub(crate) async fn overdue(self) -> Status {
        self.call.revoked.cancelled().await;
        tokio::time::sleep(GRACE).await;
        if self.call.reserved().since.is_none() {
            std::future::pending::<()>().await;
        }
        held_too_long()
    }

    /// Grows a reservation to the wanted size. No call gets more than the maximum of its tenant.
    async fn grow(&self, part: Part, wanted: impl Fn(usize) -> usize, wait: Duration) -> Result<(), Status> {
        let have = self.call.reserved().part(part).as_ref().map_or(0, Reservation::bytes);
        let wanted = wanted(have).min(self.memory.tenant_limit as usize);
        if wanted <= have {
            return Ok(());
        }
        // What it had was revoked, and is so only once per call.
        if self.call.revoked.is_cancelled() {
            return Err(held_too_long());
        }
        let more = self.acquire(wanted - have, wait).await?;
        let mut reserved = self.call.reserved();
        match reserved.part(part) {
            Some(reservation) => {
                reservation.tenant.merge(more.tenant);
                reservation.total.merge(more.total);
            }
            none => *none = Some(more),
        }
        reserved.since.get_or_insert_with(Instant::now);
        if !std::mem::replace(&mut reserved.is_listed, true) {
            drop(reserved);
            self.memory.add_holder(&self.call);
        }
        Ok(())
    }

    /// Takes from the tenant's share first, so that a tenant that waits for its own share does not delay others.
    async fn acquire(&self, bytes: usize, wait: Duration) -> Result<Reservation, Status> {
        let both = async {
            let same_tenant = |call: &Call| Arc::ptr_eq(&call.tenant, &self.call.tenant);
            let tenant = self.acquire_from(&self.call.tenant, bytes, same_tenant).await?;
            let total = self.acquire_from(&self.memory.total, bytes, |_| true).await?;
            Some(Reservation { tenant, total })
        };
        let both = tokio::time::timeout(wait, both).await;
        both.ok()
            .flatten()
            .ok_or_else(|| rate_limited("too many large bodies at once"))
    }

    /// Waits for permits. While it waits, it revokes memory that other calls have held for too long.
    async fn acquire_from(
        &self,
        permits: &Arc<Semaphore>,
        bytes: usize,
        is_candidate: impl Fn(&Call) -> bool,
    ) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut acquire = std::pin::pin!(permits.clone().acquire_many_owned(count));
        loop {
            tokio::select! {
                biased;
                acquired = &mut acquire => return acquired.ok(),
                () = tokio::time::sleep(REVOKE_INTERVAL) => self.memory.revoke(bytes, |call| {
                    is_candidate(call) && !std::ptr::eq(call, Arc::as_ptr(&self.call))
                }),
            }
        }
    }
}

fn held_too_long() -> Status {
    rate_limited("the call held memory for a large body for too long, while others waited for it")
}

#[cfg(test)]
mod tests;
