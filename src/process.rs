//! What every serving role has in common: its configuration file, its admin port, and its end.

mod admin;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::path::Path;

use crate::net;

/// The configuration file is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be parsed; the text names the field.
    #[error("{path}: {text}")]
    Parse {
        /// The file.
        path: String,
        /// Why.
        text: String,
    },
}

/// Reads a configuration file. Without one, every field has its default.
///
/// # Errors
/// Names the file, and the field that is invalid.
pub fn read_config<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, ConfigError> {
    let Some(path) = path else {
        return Ok(T::default());
    };
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: shown.clone(),
        source,
    })?;
    serde_saphyr::from_str(&text).map_err(|e| ConfigError::Parse {
        path: shown,
        text: e.to_string(),
    })
}

/// Waits for SIGTERM or SIGINT.
pub async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Serves `/healthz`, `/readyz` and `/metrics` until the end of the process. `not_ready` returns what the process waits
/// for.
///
/// # Errors
/// It cannot listen at the address.
pub async fn admin(
    address: SocketAddr,
    not_ready: impl Fn() -> Option<&'static str> + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> String + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let ready = move || {
        let answer = match not_ready() {
            None => (StatusCode::OK, "ok"),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        async move { answer }
    };
    let metrics = move || {
        let text = metrics();
        async move { text }
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    admin::serve(net::listen(address)?, router).await;
    Ok(())
}
