//! One replica leads. A Lease is taken and renewed by PUT with its resourceVersion, so two replicas can never both get
//! it. A leader that cannot renew in time steps down before another may take over.

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

use crate::kube::ApiClient;

/// How long a lease lasts without renewal. Short, so that work goes on soon after the leader was killed.
const DURATION: Duration = Duration::from_secs(10);
/// A leader that has not renewed for this long steps down, well before its lease ends.
const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// Pause between renewals.
const RENEW_PAUSE: Duration = Duration::from_secs(2);
/// Pause after a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Pause between attempts to take the lease.
const ACQUIRE_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for an answer to one call.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A candidate.
pub(crate) struct Elector {
    client: ApiClient,
    namespace: String,
    name: String,
    identity: String,
}

/// A lease of another replica, and since when we have seen it unchanged. Its own times are from another clock.
struct Seen {
    resource_version: Option<String>,
    since: Instant,
}

#[derive(Debug, PartialEq)]
enum Renewal {
    Done,
    Failed,
    /// Another replica has it.
    Taken,
}

/// Why a leader stepped down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lost {
    /// Another replica took the lease.
    Taken,
    /// The lease could not be renewed in time.
    NotRenewed,
}

impl Elector {
    /// A candidate for the lease `name` in `namespace`. `identity` is the pod's name: a container that was restarted is
    /// the same candidate.
    pub(crate) fn new(client: ApiClient, namespace: &str, name: &str, identity: &str) -> Elector {
        Elector {
            client: client.with_timeout(TIMEOUT),
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
        }
    }

    /// Waits until this replica leads.
    pub(crate) async fn acquire(&self) {
        let mut seen: Option<Seen> = None;
        loop {
            match self.read().await {
                Ok(lease) => {
                    let now = Instant::now();
                    let unchanged_for = lease.as_ref().map(|lease| {
                        let resource_version = lease.metadata.resource_version.clone();
                        let since = seen
                            .take()
                            .filter(|s| s.resource_version == resource_version)
                            .map_or(now, |s| s.since);
                        seen = Some(Seen {
                            resource_version,
                            since,
                        });
                        now - since
                    });
                    if is_free(lease.as_ref(), &self.identity, unchanged_for.unwrap_or_default())
                        && self.write(lease.as_ref()).await
                    {
                        return;
                    }
                }
                Err(error) => tracing::warn!(error = crate::telemetry::chain(&error), "cannot read the lease"),
            }
            sleep(ACQUIRE_PAUSE).await;
        }
    }

    /// Renews the lease until it is lost. Call it right after [`Elector::acquire`].
    pub(crate) async fn hold(&self) -> Lost {
        let (mut renewed, mut pause) = (Instant::now(), RENEW_PAUSE);
        loop {
            // A call that hangs must not last beyond the deadline.
            let renewal = async {
                sleep(pause).await;
                let start = Instant::now();
                (self.renew().await, start)
            };
            match timeout(RENEW_DEADLINE.saturating_sub(renewed.elapsed()), renewal).await {
                Ok((Renewal::Done, start)) => (renewed, pause) = (start, RENEW_PAUSE),
                Ok((Renewal::Failed, _)) => pause = RETRY_PAUSE,
                Ok((Renewal::Taken, _)) => return Lost::Taken,
                Err(_) => return Lost::NotRenewed,
            }
        }
    }

    async fn renew(&self) -> Renewal {
        match self.read().await {
            Ok(Some(lease)) if holder(&lease) == self.identity => match self.write(Some(&lease)).await {
                true => Renewal::Done,
                false => Renewal::Failed,
            },
            // Somebody may have deleted it: then it is free for anyone.
            Ok(_) => Renewal::Taken,
            Err(error) => {
                tracing::warn!(error = crate::telemetry::chain(&error), "cannot read the lease");
                Renewal::Failed
            }
        }
    }

    /// Gives the lease up, so that the next leader need not wait until it ends.
    pub(crate) async fn release(&self) {
        let Ok(Some(mut lease)) = self.read().await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_ref() == Some(&self.identity))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        if let Err(error) = self.client.replace(&lease).await {
            tracing::warn!(error = crate::telemetry::chain(&error), "cannot release the lease");
        }
    }

    async fn read(&self) -> kube::Result<Option<Lease>> {
        self.client.get(&self.namespace, &self.name).await
    }

    /// Takes or renews the lease, on condition that it is still as it was read.
    async fn write(&self, old: Option<&Lease>) -> bool {
        let spec = Some(claim(
            old.and_then(|l| l.spec.as_ref()),
            &self.identity,
            Timestamp::now(),
        ));
        let result = match old {
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                self.client.create(&Lease { metadata, spec }).await
            }
            Some(lease) => {
                let metadata = lease.metadata.clone();
                self.client.replace(&Lease { metadata, spec }).await
            }
        };
        result
            .inspect_err(|error| tracing::debug!(error = crate::telemetry::chain(error), "lease not written"))
            .is_ok()
    }
}

fn holder(lease: &Lease) -> &str {
    lease
        .spec
        .as_ref()
        .and_then(|s| s.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Whether a candidate may take the lease: nobody has it, or an earlier process of the same pod, or it ended. It lasts
/// as long as it says, since its holder may be of another version.
fn is_free(lease: Option<&Lease>, identity: &str, unchanged_for: Duration) -> bool {
    let Some(lease) = lease else { return true };
    let seconds = lease.spec.as_ref().and_then(|s| s.lease_duration_seconds);
    let duration = seconds
        .and_then(|s| u64::try_from(s).ok())
        .map_or(DURATION, Duration::from_secs);
    holder(lease).is_empty() || holder(lease) == identity || unchanged_for >= duration
}

fn claim(old: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> LeaseSpec {
    let ours = old.filter(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = old.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(identity.into()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions.saturating_add(i32::from(ours.is_none()))),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
mod tests;
