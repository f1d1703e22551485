//! `/healthz`, `/readyz` and `/metrics`.

use futures::FutureExt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;

use super::metrics::Metrics;
use super::runtime::{self, Cache};
use crate::process;

/// Serves until the end of the process. The replica is ready when every kind was listed once; `caches` are empty until
/// then, and set when the API server has answered.
pub(super) async fn serve(
    address: SocketAddr,
    caches: Arc<OnceLock<Vec<Cache>>>,
    metrics: Metrics,
) -> std::io::Result<()> {
    let watched = caches.clone();
    let not_ready = move || match watched.get() {
        None => Some("waiting for the API server"),
        Some(caches) => match runtime::ready(caches).now_or_never() {
            Some(()) => None,
            None => Some("waiting for the first list of each kind; are the CustomResourceDefinitions installed?"),
        },
    };
    let text = move || {
        let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
        for cache in caches.get().into_iter().flatten() {
            *kinds.entry(cache.kind).or_default() += (cache.len)();
        }
        kinds
            .into_iter()
            .for_each(|(kind, objects)| metrics.cached(kind, objects));
        metrics.text()
    };
    process::admin(address, not_ready, text).await
}
