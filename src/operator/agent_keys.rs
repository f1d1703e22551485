//! The key pairs behind the agents' tokens, in one Secret beside the operator: each pod gets the public half of the
//! newest, and names it. A private half is kept until the last pod that names it is gone, so that a pod can be called
//! however long it lives.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::Store;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::watch;

use super::apply::{Created, Writer};
use super::error::Error;
use super::sandbox::CachedPod;
use crate::agent_client::KeyRing;
use crate::kube::ApiClient;
use crate::resources::AgentKey;

/// Seconds after which new pods get a new key: a week.
const ROTATE_AFTER: i64 = 7 * 24 * 3600;
/// Seconds for which a superseded key is kept although no pod names it: a pod that is being created may.
const KEEP_SUPERSEDED: i64 = 3600;
/// Seconds until a new key has reached everyone who calls agents: the kubelet updates a Secret in the gateway's pods
/// within two minutes.
const PROPAGATION: i64 = 300;
/// Attempts to write the Secret while other replicas do the same.
const ATTEMPTS: u32 = 5;

/// Key ids with their private halves (PKCS#8).
type Keys = BTreeMap<String, Vec<u8>>;

/// Pause between two updates.
const UPDATE_PAUSE: Duration = Duration::from_secs(3600);
/// Pause after an update that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Keeps the keys while this replica leads.
pub(crate) struct Keyring {
    writer: Writer,
    namespace: String,
    name: String,
    newest: watch::Sender<AgentKey>,
    private: KeyRing,
}

impl Keyring {
    /// A keyring without keys.
    pub(crate) fn new(client: ApiClient, namespace: &str, name: &str) -> Keyring {
        Keyring {
            writer: Writer::new(client),
            namespace: namespace.into(),
            name: name.into(),
            newest: watch::Sender::default(),
            private: KeyRing::default(),
        }
    }

    /// The key that new pods get.
    pub(crate) fn newest(&self) -> watch::Receiver<AgentKey> {
        self.newest.subscribe()
    }

    /// The private halves, for our own calls.
    pub(crate) fn private(&self) -> KeyRing {
        self.private.clone()
    }

    /// Updates the keys, however long it takes.
    pub(crate) async fn refresh(&self, pods: &[Store<CachedPod>]) {
        loop {
            let in_use = pods
                .iter()
                .flat_map(Store::state)
                .filter_map(|pod| pod.view.agent_key.clone());
            let now = Timestamp::now().as_second();
            match refresh(&self.writer, &self.namespace, &self.name, &in_use.collect(), now)
                .await
                .map(|keys| self.adopt(&keys, now))
            {
                Ok(Some(key)) => {
                    self.newest.send_replace(key);
                    return;
                }
                Ok(None) => tracing::error!(secret = self.name, "no valid key for the agents; sandboxes wait"),
                Err(error) => tracing::warn!(
                    secret = self.name,
                    error = crate::telemetry::chain(&error),
                    "cannot update the keys for the agents"
                ),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn adopt(&self, keys: &Keys, now: i64) -> Option<AgentKey> {
        for (id, pkcs8) in keys {
            if let Err(error) = self.private.insert(id, pkcs8) {
                tracing::warn!(secret = self.name, key = id, %error, "invalid key for the agents");
            }
        }
        newest(keys, now)
    }

    /// Updates the keys every hour.
    pub(crate) async fn refresh_hourly(&self, pods: &[Store<CachedPod>]) {
        loop {
            tokio::time::sleep(UPDATE_PAUSE).await;
            self.refresh(pods).await;
        }
    }
}

/// Reads the keys, creates one if the newest is old, drops those that no pod names, and returns the rest.
///
/// # Errors
/// Those of the API server. The Secret is unchanged then.
async fn refresh(
    writer: &Writer,
    namespace: &str,
    name: &str,
    in_use: &BTreeSet<String>,
    now: i64,
) -> Result<Keys, Error> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let found: Option<Secret> = writer.get("Secret", namespace, name).await?;
        let old: Keys = found
            .iter()
            .flat_map(|s| s.data.iter().flatten())
            .map(|(id, pkcs8)| (id.clone(), pkcs8.0.clone()))
            .collect();
        let new = renewed(&old, in_use, now, generate);
        if new == old {
            return Ok(new);
        }
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some(namespace.into()),
                labels: Some(crate::resources::labels::managed()),
                // A conflict if another replica wrote it after we read it: then it is read again.
                resource_version: found.as_ref().and_then(|s| s.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(
                new.iter()
                    .map(|(id, pkcs8)| (id.clone(), ByteString(pkcs8.clone())))
                    .collect(),
            ),
            ..Secret::default()
        };
        if found.is_some() {
            match writer.replace("Secret", &secret).await {
                Ok(_) => return Ok(new),
                Err(error) if error.status().is_some_and(|s| s.is_conflict() || s.is_not_found()) => last = Some(error),
                Err(error) => return Err(error),
            }
        } else if let Created::New(_) = writer.create("Secret", &secret).await? {
            return Ok(new);
        }
    }
    Err(last.unwrap_or(Error::Contended {
        kind: "Secret",
        name: name.into(),
    }))
}

/// The newest key that every caller has by now.
fn newest(keys: &Keys, now: i64) -> Option<AgentKey> {
    let known: Vec<_> = keys
        .iter()
        .filter_map(|(id, pkcs8)| Some((id, Ed25519KeyPair::from_pkcs8(pkcs8).ok()?)))
        .collect();
    let settled = known.iter().rev().find(|(id, _)| created_at(id) + PROPAGATION <= now);
    // The very first key has no older one to fall back to.
    let (id, pair) = settled.or(known.last())?;
    Some(AgentKey {
        id: (*id).clone(),
        public_key: STANDARD.encode(pair.public_key()),
    })
}

/// Ids begin with the time of creation, so they sort by age.
fn created_at(id: &str) -> i64 {
    id.trim_start_matches('k').parse().unwrap_or_default()
}

fn renewed(old: &Keys, in_use: &BTreeSet<String>, now: i64, generate: impl FnOnce() -> Option<Vec<u8>>) -> Keys {
    let mut keys = old.clone();
    let newest = keys.keys().next_back().map_or(i64::MIN, |id| created_at(id));
    if newest.saturating_add(ROTATE_AFTER) <= now
        && let Some(pkcs8) = generate()
    {
        keys.insert(format!("k{now:012}"), pkcs8);
    }
    let ids: Vec<String> = keys.keys().cloned().collect();
    // A key is superseded when the next one is created.
    for pair in ids.windows(2) {
        if !in_use.contains(&pair[0]) && created_at(&pair[1]) + KEEP_SUPERSEDED <= now {
            keys.remove(&pair[0]);
        }
    }
    keys
}

fn generate() -> Option<Vec<u8>> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).ok()?;
    Some(pkcs8.as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn after(keys: &Keys, in_use: &[&str], now: i64) -> Keys {
        renewed(keys, &in_use.iter().map(ToString::to_string).collect(), now, generate)
    }

    #[test]
    fn a_pod_of_thirty_days_keeps_its_key_through_rotations_and_no_longer() {
        let start = 1_790_000_000;
        let mut keys = after(&Keys::new(), &[], start);
        let first = newest(&keys, start).unwrap().id;
        for day in 1..=30 {
            keys = after(&keys, &[&first], start + day * DAY);
        }
        assert!(keys.contains_key(&first));
        assert_eq!(keys.len(), 2, "the keys in between are dropped: no pod names them");
        assert_ne!(newest(&keys, start + 30 * DAY).unwrap().id, first);
        let end = after(&keys, &[], start + 30 * DAY + KEEP_SUPERSEDED);
        assert!(!end.contains_key(&first));
    }

    #[test]
    fn the_newest_key_stays_whatever_its_age_and_a_young_one_is_not_replaced() {
        let keys = after(&Keys::new(), &[], 1_790_000_000);
        assert_eq!(after(&keys, &[], 1_790_000_000 + ROTATE_AFTER - 1), keys);
        let rotated = after(&keys, &[], 1_790_000_000 + ROTATE_AFTER);
        assert_eq!(rotated.len(), 2, "the old one is kept for pods that are being created");
        let given = |after: i64| newest(&rotated, 1_790_000_000 + ROTATE_AFTER + after).unwrap().id;
        assert_eq!(
            Some(&given(PROPAGATION - 1)),
            rotated.keys().next(),
            "the new one has not reached everyone"
        );
        assert_eq!(Some(&given(PROPAGATION)), rotated.keys().last());
        assert_eq!(
            after(&rotated, &[], 1_790_000_000 + ROTATE_AFTER + KEEP_SUPERSEDED).len(),
            1
        );
    }
}
