//! `/healthz`, `/readyz` and `/metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use std::net::SocketAddr;

use super::caches::Caches;
use super::metrics::Metrics;

#[derive(Clone)]
struct Admin {
    caches: Vec<Caches>,
    metrics: Metrics,
}

/// Serves until the end of the process.
pub async fn serve(address: SocketAddr, caches: Vec<Caches>, metrics: Metrics) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { caches, metrics });
    axum::serve(tokio::net::TcpListener::bind(address).await?, router).await
}

async fn metrics_text(State(admin): State<Admin>) -> String {
    let sum = |size: fn(&Caches) -> usize| admin.caches.iter().map(size).sum();
    admin.metrics.cached("Sandbox", sum(|c| c.sandboxes.len()));
    admin.metrics.cached("SandboxSession", sum(|c| c.sessions.len()));
    admin.metrics.cached("Pod", sum(|c| c.pods.len()));
    admin.metrics.cached("NetworkPolicy", sum(|c| c.policies.len()));
    admin.metrics.text()
}

/// Ready when every kind was listed once: so also when the CustomResourceDefinitions came after us.
async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    use futures::FutureExt;
    let all = admin.caches.iter().map(|c| async { c.ready().await });
    match futures::future::join_all(all).now_or_never() {
        Some(_) => (StatusCode::OK, "ok".into()),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the first list of each kind; are the CustomResourceDefinitions there?".into(),
        ),
    }
}
