//! The HTTP server of `/healthz`, `/readyz` and `/metrics`. Its clients do not authenticate, so connections, time and
//! bytes are bounded. A new connection replaces the oldest one, so that idle connections do not block probes.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::net;

/// Open connections.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum age of a connection, which carries one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum bytes buffered per connection: hyper's minimum.
const MAX_BUFFER: usize = 8 << 10;

/// Serves until the end of the process.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    // One more than may stay open, for the connection that replaces the oldest.
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS + 1));
    let mut open = VecDeque::<JoinHandle<()>>::new();
    let warn = |error: &std::io::Error| tracing::warn!(%error, "a connection to the admin port could not be accepted");
    while let Some((stream, _, slot)) = net::accept(&listener, &slots, warn).await {
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MAX_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let router = router.clone();
        open.push_back(tokio::spawn(async move {
            let _slot = slot;
            // Dropping the connection closes it.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve_connection(stream, router)).await;
        }));
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .keep_alive(false);
    let served = builder
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "connection to the admin port failed");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
