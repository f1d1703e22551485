//! One replica leads. A Lease is taken and renewed by PUT with its resourceVersion, so two can never both believe they got it;
//! who cannot renew in time stops believing before anyone else may take it, and the process ends.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use std::time::{Duration, Instant};

use crate::kube::ApiClient;

/// How long a lease holds without renewal; what controllers of Kubernetes use.
const DURATION: Duration = Duration::from_secs(15);
/// Who has not renewed for this long gives up: well before another may take over.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between attempts.
const RETRY: Duration = Duration::from_secs(2);

/// Longest wait for an answer to one call.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A candidate.
pub struct Elector {
    client: ApiClient,
    namespace: String,
    name: String,
    identity: String,
}

enum Renewal {
    Done,
    Failed,
    Taken,
}

/// The lease was lost.
#[derive(Debug, thiserror::Error)]
#[error("the lease was lost")]
pub struct Lost;

impl Elector {
    /// A candidate for the lease `name` in `namespace`.
    pub fn new(client: ApiClient, namespace: &str, name: &str, identity: &str) -> Elector {
        Elector {
            client: client.with_timeout(TIMEOUT),
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
        }
    }

    /// Waits until this replica leads. Expiry of another's lease is judged by our own clock from when we last saw it change.
    pub async fn acquire(&self) {
        let mut seen: Option<(Lease, Instant)> = None;
        loop {
            match self.client.get::<Lease>(&self.namespace, &self.name).await {
                Ok(None) => {
                    if let Some(lease) = self.put(None).await {
                        tracing::debug!(?lease.metadata.resource_version, "lease made");
                        return;
                    }
                }
                Ok(Some(lease)) => {
                    let unchanged = seen
                        .as_ref()
                        .filter(|(old, _)| old.metadata.resource_version == lease.metadata.resource_version);
                    let since = unchanged.map_or_else(Instant::now, |(_, at)| *at);
                    let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
                    let free = holder.is_empty() || holder == self.identity || since.elapsed() >= DURATION;
                    if free && self.put(Some(&lease)).await.is_some() {
                        return;
                    }
                    seen = Some((lease, since));
                }
                Err(error) => tracing::warn!(%error, "lease cannot be read"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews until it cannot.
    pub async fn hold(&self) -> Lost {
        let mut renewed = Instant::now();
        loop {
            // A call that hangs must not carry us past the deadline.
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            let began = Instant::now() + RETRY.min(left);
            match tokio::time::timeout(left, self.renew()).await {
                Ok(Renewal::Done) => renewed = began,
                Ok(Renewal::Failed) => {}
                Ok(Renewal::Taken) | Err(_) => return Lost,
            }
        }
    }

    async fn renew(&self) -> Renewal {
        tokio::time::sleep(RETRY).await;
        match self.client.get::<Lease>(&self.namespace, &self.name).await {
            Ok(None) => Renewal::Taken,
            Ok(Some(lease)) if lease.spec.as_ref().and_then(|s| s.holder_identity.as_ref()) != Some(&self.identity) => Renewal::Taken,
            Ok(Some(lease)) if self.put(Some(&lease)).await.is_some() => Renewal::Done,
            Ok(_) => Renewal::Failed,
            Err(error) => {
                tracing::warn!(%error, "lease cannot be read");
                Renewal::Failed
            }
        }
    }

    /// Gives the lease back, so that the next leader need not wait for it to expire.
    pub async fn release(&self) {
        let Ok(Some(mut lease)) = self.client.get::<Lease>(&self.namespace, &self.name).await else {
            return;
        };
        let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_ref() == Some(&self.identity)) else {
            return;
        };
        spec.holder_identity = Some(String::new());
        if let Err(error) = self.client.replace(&lease).await {
            tracing::warn!(%error, "lease cannot be released");
        }
    }

    async fn put(&self, old: Option<&Lease>) -> Option<Lease> {
        let now = MicroTime(Timestamp::now());
        let previous = old.and_then(|l| l.spec.clone()).unwrap_or_default();
        let mine = previous.holder_identity.as_ref() == Some(&self.identity);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(SignedDuration::try_from(DURATION).ok()?.as_secs()).ok(),
            acquire_time: if mine { previous.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(previous.lease_transitions.unwrap_or_default() + i32::from(!mine)),
            ..LeaseSpec::default()
        };
        let result = match old {
            None => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                self.client.create(&Lease { metadata, spec: Some(spec) }).await
            }
            Some(lease) => {
                let lease = Lease {
                    metadata: lease.metadata.clone(),
                    spec: Some(spec),
                };
                self.client.replace(&lease).await
            }
        };
        result.inspect_err(|error| tracing::debug!(%error, "lease not taken")).ok()
    }
}
