//! The client with which the operator and the gateway call agents.

mod connection;
mod dial;
mod keys;

use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Endpoint;

use crate::proto::agent::StopRequest;
use crate::proto::agent::agent_client::AgentClient as Stub;
use connection::Credentials;
pub use connection::{Connection, ResetToken};
pub use keys::{KeyError, KeyRing};

/// Largest message from an agent: chunks of files have 128 KiB. An agent is not trusted to keep to that, and each call
/// in progress can take as much memory.
const MAX_MESSAGE: usize = (128 + 32) * 1024;
/// Most bytes of data in one message to an agent.
pub const MAX_PIECE: usize = 64 * 1024;
/// Longest time of a stop call.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept for this long after the start of its last call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Most connections that are kept.
const MAX_CONNECTIONS: usize = 1024;
/// Bytes per call and per connection that are buffered for slow readers. So many calls of a sandbox can be left unread
/// before they block its other calls.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;

/// A client of one agent.
pub type Agent = Stub<Connection>;

/// An agent's address and the key that it accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEndpoint {
    /// UID of its pod.
    pub pod_uid: String,
    /// Address of its pod.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Id of the key whose public half the pod has.
    pub key_id: String,
    /// Start of the pod's main container, if known. Connections to a young pod are retried for longer.
    pub started_at: Option<Timestamp>,
}

/// Calls to agents.
#[derive(Clone)]
pub struct AgentClient {
    keys: KeyRing,
    connections: Arc<Mutex<HashMap<String, Cached>>>,
}

struct Cached {
    endpoint: AgentEndpoint,
    connection: Connection,
    last_used: Instant,
}

impl AgentClient {
    /// A client that signs its tokens with `keys`.
    pub fn new(keys: KeyRing) -> AgentClient {
        AgentClient {
            keys,
            connections: Arc::default(),
        }
    }

    /// The agent of a pod. The first call connects; later calls share the connection.
    ///
    /// # Errors
    /// The pod's key is not known.
    pub fn agent(&self, endpoint: &AgentEndpoint) -> Result<Agent, KeyError> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = connections.get_mut(&endpoint.pod_uid)
            && cached.endpoint == *endpoint
        {
            cached.last_used = Instant::now();
            return Ok(stub(cached.connection.clone()));
        }
        let credentials = Credentials::new(self.keys.get(&endpoint.key_id)?, &endpoint.pod_uid);
        let (address, started_at) = (SocketAddr::new(endpoint.ip, endpoint.port), endpoint.started_at);
        let connector =
            tower::service_fn(move |_| async move { dial::connect(address, started_at).await.map(TokioIo::new) });
        let channel = http_endpoint(address).connect_with_connector_lazy(connector);
        let connection = Connection::new(channel, Some(credentials));
        evict(&mut connections);
        let cached = Cached {
            endpoint: endpoint.clone(),
            connection: connection.clone(),
            last_used: Instant::now(),
        };
        connections.insert(endpoint.pod_uid.clone(), cached);
        Ok(stub(connection))
    }

    /// Stops the main command, with `grace_seconds` between SIGTERM and SIGKILL.
    ///
    /// # Errors
    /// Why the call failed, for the log. The sandboxed code may have made it up.
    pub async fn stop(&self, endpoint: &AgentEndpoint, grace_seconds: u32) -> Result<(), String> {
        let mut agent = self.agent(endpoint).map_err(|e| e.to_string())?;
        match tokio::time::timeout(STOP_TIMEOUT, agent.stop(StopRequest { grace_seconds })).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.code().to_string()),
            Err(_) => Err(format!("no response within {} s", STOP_TIMEOUT.as_secs())),
        }
    }

    /// The agent at the other end of `stream`, which is authenticated by other means. The stream lives as long as the
    /// client.
    ///
    /// # Errors
    /// The stream has ended.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Agent, tonic::transport::Error> {
        let mut stream = Some(TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            let stream = stream
                .take()
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
            async move { stream }
        });
        let channel = http_endpoint(SocketAddr::from(([127, 0, 0, 1], 80)))
            .connect_with_connector(once)
            .await?;
        Ok(stub(Connection::new(channel, None)))
    }
}

fn http_endpoint(address: SocketAddr) -> Endpoint {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build();
    // An address and a port are always an authority.
    Endpoint::from(uri.unwrap_or_default())
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

fn stub(connection: Connection) -> Agent {
    Stub::new(connection).max_decoding_message_size(MAX_MESSAGE)
}

/// Drops idle connections, and the least recently used one if there are still too many. Calls in progress keep their
/// connection.
fn evict(connections: &mut HashMap<String, Cached>) {
    connections.retain(|_, cached| cached.last_used.elapsed() < IDLE_TIMEOUT);
    if connections.len() >= MAX_CONNECTIONS
        && let Some(oldest) = connections
            .iter()
            .min_by_key(|(_, cached)| cached.last_used)
            .map(|(uid, _)| uid.clone())
    {
        connections.remove(&oldest);
    }
}
