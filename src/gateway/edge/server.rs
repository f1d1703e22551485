//! The HTTP/2 server.

use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::gateway::edge::auth::AuthLayer;
use crate::gateway::edge::connection::Connection;
use crate::gateway::edge::limits::STREAM_WINDOW;

/// Pings on every connection: long streams are idle, and a connection whose peer is gone must end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Longest wait for the response to a ping.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Age at which clients are asked to reconnect, so that they spread over new replicas. Calls in flight continue.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Concurrent calls on one connection.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Bytes in flight of one connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of request headers, of which credentials are the largest.
const MAX_HEADERS: u32 = 32 << 10;

/// Serves until `stop`, and then until the calls in flight have ended.
///
/// # Errors
/// Those of the transport.
pub async fn serve(
    layer: AuthLayer,
    routes: Routes,
    connections: mpsc::Receiver<io::Result<Connection>>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .layer(layer)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_connection_age(MAX_CONNECTION_AGE)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(MAX_HEADERS)
        .serve_with_incoming_shutdown(
            routes.prepare(),
            ReceiverStream::new(connections),
            stop.cancelled_owned(),
        )
        .await
}
