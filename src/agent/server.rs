//! The agent's gRPC server: authentication, limits and transports.

use super::exec::{self, ResponseStream};
use super::fd::Fd;
use super::files::{self, Chunks};
use super::reaper::Reaper;
use super::report::log;
use crate::net::{self, Connection, Peer, UnauthenticatedConn};
use crate::proto::agent::agent_server::{Agent, AgentServer};
use crate::proto::agent::{
    ExecRequest, ReadFileRequest, StopRequest, StopResponse, WriteFileRequest, WriteFileResponse,
};
use crate::token;
use futures::stream;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

/// Most connections at once.
const MAX_CONNECTIONS: usize = 64;
/// Most calls at once on a connection.
const MAX_STREAMS: u32 = 1024;
/// Bytes of one call's requests that may be buffered here.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all calls of a connection. Large enough that commands that do not read their input do not block the
/// others.
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;
/// A client that is gone is noticed after one or two of these.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Longest time of a connection without an authenticated call.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Threads for file operations.
const FILE_THREADS: usize = 4;
/// Interval between two attempts to bind the port.
const BIND_RETRY: Duration = Duration::from_secs(1);

/// One thread for everything but file operations.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(Duration::MAX)
        .build()
}

/// Starts the first thread for file operations: later the sandbox may have reached its limit of processes.
pub(super) async fn start_file_thread() {
    let _ = tokio::task::spawn_blocking(|| ()).await;
}

/// Admits calls with a valid token for this pod.
#[derive(Clone)]
pub(super) struct TokenVerifier {
    keys: Arc<[Vec<u8>]>,
    pod_uid: Arc<str>,
}

impl TokenVerifier {
    /// `keys`: the public keys of the issuers.
    pub(super) fn new(keys: Vec<Vec<u8>>, pod_uid: String) -> TokenVerifier {
        TokenVerifier {
            keys: keys.into(),
            pod_uid: pod_uid.into(),
        }
    }

    fn check(&self, request: &Request<()>) -> Result<(), Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs().cast_signed());
        let valid = token.is_some_and(|token| {
            self.keys
                .iter()
                .any(|key| token::verify(key, token, &self.pod_uid, now).is_ok())
        });
        // Does not say what is wrong with the token.
        if valid {
            Ok(())
        } else {
            Err(Status::unauthenticated("no valid token"))
        }
    }
}

/// Serves in the background. Tries to bind the port once before it returns, so that no process of the sandbox can bind
/// it first.
pub(super) async fn listen(port: u16, verifier: TokenVerifier, reaper: Reaper, stop: mpsc::Sender<Duration>) {
    let listen = move || net::listen((Ipv6Addr::UNSPECIFIED, port).into());
    let first = listen();
    if let Err(error) = &first {
        log(&format!("port {port}: {error}; retrying"));
    }
    let service = Service::new(reaper, Some(stop));
    tokio::spawn(async move {
        let mut listener = first;
        let listener = loop {
            match listener {
                Ok(listener) => break listener,
                Err(_) => sleep(BIND_RETRY).await,
            }
            listener = listen();
        };
        let served = router(service, Some(verifier))
            .serve_with_incoming(connections(listener))
            .await;
        log(&format!("port {port}: stopped serving: {served:?}"));
    });
}

fn connections(
    listener: TcpListener,
) -> impl stream::Stream<Item = io::Result<Connection<TcpStream, OwnedSemaphorePermit>>> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    stream::unfold((listener, slots), |(listener, slots)| async {
        let (io, peer, slot) = net::accept(&listener, &slots, |_| {}).await?;
        let unauthenticated = UnauthenticatedConn::new(AUTHENTICATION_TIMEOUT, None);
        Some((Ok(Connection::new(io, peer, unauthenticated, slot)), (listener, slots)))
    })
}

/// Serves one client on standard input and output until it closes the connection.
pub(super) fn stdio() -> io::Result<()> {
    // Dropping it kills all commands that still run.
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let reaper = Reaper::new(false);
        let mut children = signal(SignalKind::child())?;
        let service = Service::new(reaper.clone(), None);
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                reaper.reap();
            }
        });
        let stdin = Fd::new(io::stdin().as_fd().try_clone_to_owned()?)?;
        let stdout = Fd::new(io::stdout().as_fd().try_clone_to_owned()?)?;
        let slots = Arc::new(Semaphore::new(1));
        let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
        // Whoever may start a process in the container may call.
        let connection = Connection::trusted(tokio::io::join(stdin, stdout), slot);
        let only = stream::once(std::future::ready(Ok::<_, io::Error>(connection)));
        router(service, None)
            .serve_with_incoming(only)
            .await
            .map_err(io::Error::other)?;
        // The slot is free again when the connection has ended.
        slots.acquire().await.map(drop).map_err(io::Error::other)
    });
    runtime.shutdown_background();
    result
}

fn router(service: Service, verifier: Option<TokenVerifier>) -> Router {
    let check = move |request: Request<()>| match &verifier {
        Some(verifier) => {
            verifier.check(&request)?;
            if let Some(peer) = request.extensions().get::<Peer>() {
                peer.mark_authenticated();
            }
            Ok(request)
        }
        None => Ok(request),
    };
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(16 * 1024)
        .add_service(AgentServer::with_interceptor(service, check))
}

struct Service {
    reaper: Reaper,
    files: files::FileSlots,
    /// None where the agent is not PID 1.
    stop: Option<mpsc::Sender<Duration>>,
}

impl Service {
    fn new(reaper: Reaper, stop: Option<mpsc::Sender<Duration>>) -> Service {
        let files = files::slots();
        Service { reaper, files, stop }
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type ExecStream = ResponseStream;
    type ReadFileStream = Chunks;

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<ResponseStream>, Status> {
        exec::exec(&self.reaper, request).await
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<Chunks>, Status> {
        files::read(&self.files, request.into_inner()).await.map(Response::new)
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        files::write(&self.files, request.into_inner()).await?;
        Ok(Response::new(WriteFileResponse {}))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let Some(stop) = &self.stop else {
            return Err(Status::failed_precondition(
                "the container's main process is not the agent",
            ));
        };
        let grace = Duration::from_secs(request.into_inner().grace_seconds.into());
        stop.send(grace)
            .await
            .map_err(|_| Status::unavailable("the agent is exiting"))?;
        Ok(Response::new(StopResponse {}))
    }
}
