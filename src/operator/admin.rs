//! `/healthz`, `/readyz` and `/metrics`.

use futures::FutureExt;
use std::net::SocketAddr;

use super::caches::Caches;
use super::metrics::Metrics;
use crate::process;

/// Serves until the end of the process. Ready when every kind was listed once: so also when the CustomResourceDefinitions came after us.
pub async fn serve(address: SocketAddr, caches: Vec<Caches>, metrics: Metrics) -> std::io::Result<()> {
    let watched = caches.clone();
    let waits_for = move || {
        let all = watched.iter().map(|c| async { c.ready().await });
        match futures::future::join_all(all).now_or_never() {
            Some(_) => None,
            None => Some("waiting for the first list of each kind; are the CustomResourceDefinitions there?"),
        }
    };
    let text = move || {
        let sum = |size: fn(&Caches) -> usize| caches.iter().map(size).sum();
        metrics.cached("Sandbox", sum(|c| c.sandboxes.len()));
        metrics.cached("SandboxSession", sum(|c| c.sessions.len()));
        metrics.cached("Pod", sum(|c| c.pods.len()));
        metrics.cached("NetworkPolicy", sum(|c| c.policies.len()));
        metrics.text()
    };
    process::admin(address, waits_for, text).await
}
