//! How operator and gateway call the agents in the sandboxes.

mod connection;
mod keys;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Endpoint;

use crate::proto::agent::StopRequest;
use crate::proto::agent::agent_client::AgentClient as Stub;
use connection::Credentials;
pub use connection::{Connection, CutOff};
pub use keys::{KeyError, KeyRing};

/// Largest message of an agent that is read: its largest are pieces of files, of 128 KiB, and it is not trusted to keep to that. Each call
/// under way can make us hold as much.
const MAX_MESSAGE: usize = (128 + 32) * 1024;
/// Most bytes of one message to an agent.
pub const MAX_PIECE: usize = 64 * 1024;
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for the answer to a stop.
const ASK: Duration = Duration::from_secs(3);
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// Connections are kept for this long after their last call began.
const KEEP_IDLE: Duration = Duration::from_secs(120);
/// Most connections that are kept.
const KEEP: usize = 1024;
/// Bytes in flight per call and per connection: what slow readers can make us hold. As many calls as an agent takes at once can be left
/// unread before they hold up the others of their sandbox.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;

/// A client of one agent.
pub type Agent = Stub<Connection>;

/// Where an agent is, and the key it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// UID of its pod.
    pub pod_uid: String,
    /// Address of its pod.
    pub ip: IpAddr,
    /// Its port.
    pub port: u16,
    /// Id of the key whose public half came with the pod.
    pub key_id: String,
}

/// Calls to agents.
#[derive(Clone)]
pub struct AgentClient {
    keys: KeyRing,
    connections: Arc<Mutex<HashMap<String, Kept>>>,
}

struct Kept {
    target: Target,
    connection: Connection,
    used: Instant,
}

impl AgentClient {
    /// Calls with these keys.
    pub fn new(keys: KeyRing) -> AgentClient {
        AgentClient {
            keys,
            connections: Arc::default(),
        }
    }

    /// A client of the agent in a pod. It connects with the first call; connections are kept for later ones.
    ///
    /// # Errors
    /// When the pod's key is not known.
    pub fn agent(&self, target: &Target) -> Result<Agent, KeyError> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = connections.get_mut(&target.pod_uid)
            && kept.target == *target
        {
            kept.used = Instant::now();
            return Ok(stub(kept.connection.clone()));
        }
        let credentials = Credentials::new(self.keys.get(&target.key_id)?, &target.pod_uid);
        let channel = endpoint(SocketAddr::new(target.ip, target.port)).connect_lazy();
        let connection = Connection::new(channel, Some(credentials));
        make_room(&mut connections);
        let kept = Kept {
            target: target.clone(),
            connection: connection.clone(),
            used: Instant::now(),
        };
        connections.insert(target.pod_uid.clone(), kept);
        Ok(stub(connection))
    }

    /// Asks an agent to end its main command, with these seconds between SIGTERM and SIGKILL.
    ///
    /// # Errors
    /// Why it could not be asked, for the log: the sandbox may lie about it.
    pub async fn stop(&self, target: &Target, grace_seconds: u32) -> Result<(), String> {
        let mut agent = self.agent(target).map_err(|e| e.to_string())?;
        match tokio::time::timeout(ASK, agent.stop(StopRequest { grace_seconds })).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.code().to_string()),
            Err(_) => Err(format!("no answer within {} s", ASK.as_secs())),
        }
    }

    /// A client of the agent at the other end of `stream`, which is guarded otherwise. It lasts as long as the client.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Agent, tonic::transport::Error> {
        let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
            async move { stream }
        });
        let channel = endpoint(SocketAddr::from(([127, 0, 0, 1], 80))).connect_with_connector(once).await?;
        Ok(stub(Connection::new(channel, None)))
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query("/")
        .build();
    // An address and a port are always an authority.
    Endpoint::from(uri.unwrap_or_default())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WITHIN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

fn stub(connection: Connection) -> Agent {
    Stub::new(connection).max_decoding_message_size(MAX_MESSAGE)
}

/// Drops what is idle, and if that does not make room what was used longest ago. Calls that go on keep their connection.
fn make_room(connections: &mut HashMap<String, Kept>) {
    connections.retain(|_, kept| kept.used.elapsed() < KEEP_IDLE);
    if connections.len() >= KEEP
        && let Some(oldest) = connections.iter().min_by_key(|(_, kept)| kept.used).map(|(uid, _)| uid.clone())
    {
        connections.remove(&oldest);
    }
}
