//! The agent's gRPC server: who may call, how much at once, and over what.

use super::exec::{self, Answers};
use super::fd::Fd;
use super::files::{self, Chunks};
use super::reaper::Reaper;
use super::say;
use crate::proto::agent::agent_server::{Agent, AgentServer};
use crate::proto::agent::{ExecRequest, ReadFileRequest, StopRequest, StopResponse, WriteFileRequest, WriteFileResponse};
use crate::stranger::{Known, Stranger};
use crate::token;
use futures::stream;
use rustix::net::sockopt::set_ipv6_v6only;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tonic::{Request, Response, Status, Streaming};

/// Most connections at once.
const CONNECTIONS: usize = 64;
/// Most calls at once on a connection.
const STREAMS: u32 = 1024;
/// Bytes of one call that may wait for it here.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same for all calls of a connection. Many windows, so that some commands that do not read their input do not stop all others.
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;
/// A client that vanished is noticed after one ping, or two.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Longest time of a connection without a caller who may call.
const STRANGER: Duration = Duration::from_secs(10);
/// Threads for files.
const FILE_THREADS: usize = 4;
/// Between two tries for the port.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// One thread for everything but files.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(Duration::MAX)
        .build()
}

/// Starts the first thread for files: later a sandbox that is at its limit of processes would not let us.
pub async fn keep_a_thread() {
    let _ = tokio::task::spawn_blocking(|| ()).await;
}

/// Who may call: the bearer of a token for this pod.
#[derive(Clone)]
pub struct Access {
    keys: Arc<[Vec<u8>]>,
    pod_uid: Arc<str>,
}

impl Access {
    /// `keys`: public keys of those who make tokens.
    pub fn new(keys: Vec<Vec<u8>>, pod_uid: String) -> Access {
        Access {
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
        let valid = token.is_some_and(|token| self.keys.iter().any(|key| token::verify(key, token, &self.pod_uid, now).is_ok()));
        // Not which rule it broke.
        if valid { Ok(()) } else { Err(Status::unauthenticated("no valid token")) }
    }
}

/// Serves in the background. Tries for the port once before it returns, so that nothing in the sandbox can be there first.
pub async fn listen(port: u16, access: Access, reaper: Reaper, stop: mpsc::Sender<Duration>) {
    let first = bind(port);
    if let Err(error) = &first {
        say(&format!("port {port}: {error}; trying again"));
    }
    let service = Service::new(reaper, Some(stop));
    tokio::spawn(async move {
        let mut listener = first;
        let listener = loop {
            match listener {
                Ok(listener) => break listener,
                Err(_) => sleep(TRY_AGAIN).await,
            }
            listener = bind(port);
        };
        let served = router(service, Some(access)).serve_with_incoming(connections(listener)).await;
        say(&format!("port {port}: no longer served: {served:?}"));
    });
}

/// Both address families, or IPv4 alone where there is no other.
fn bind(port: u16) -> io::Result<TcpListener> {
    let listen = |socket: io::Result<TcpSocket>, address: SocketAddr| {
        let socket = socket?;
        if address.is_ipv6() {
            set_ipv6_v6only(&socket, false)?;
        }
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(1024)
    };
    listen(TcpSocket::new_v6(), (Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| listen(TcpSocket::new_v4(), (Ipv4Addr::UNSPECIFIED, port).into()))
}

fn connections(listener: TcpListener) -> impl stream::Stream<Item = io::Result<Connection<TcpStream>>> {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    stream::unfold((listener, room), |(listener, room)| async {
        let place = room.clone().acquire_owned().await.ok()?;
        loop {
            // Out of file descriptors, or a client that has gone again: neither is a reason to stop.
            let Ok((io, _)) = listener.accept().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let _ = io.set_nodelay(true);
            let stranger = Some(Stranger::new(STRANGER, None));
            return Some((Ok(Connection { io, stranger, _place: place }), (listener, room)));
        }
    })
}

/// Serves the one client at the other end of standard input and output, as long as it is there.
pub fn stdio() -> io::Result<()> {
    // Dropped with all commands that still run: they are killed then.
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
        let room = Arc::new(Semaphore::new(1));
        let connection = Connection {
            io: tokio::io::join(stdin, stdout),
            // Who started us may call.
            stranger: None,
            _place: room.clone().acquire_owned().await.map_err(io::Error::other)?,
        };
        let only = stream::once(std::future::ready(Ok::<_, io::Error>(connection)));
        router(service, None).serve_with_incoming(only).await.map_err(io::Error::other)?;
        // The place is free again when the connection has ended.
        room.acquire().await.map(drop).map_err(io::Error::other)
    });
    runtime.shutdown_background();
    result
}

fn router(service: Service, access: Option<Access>) -> Router {
    let check = move |request: Request<()>| match &access {
        Some(access) => {
            access.check(&request)?;
            if let Some(known) = request.extensions().get::<Known>() {
                known.welcome();
            }
            Ok(request)
        }
        None => Ok(request),
    };
    Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(16 * 1024)
        .add_service(AgentServer::with_interceptor(service, check))
}

/// A connection and its place among those that may be open.
struct Connection<T> {
    io: T,
    stranger: Option<Stranger>,
    _place: OwnedSemaphorePermit,
}

impl<T> Connected for Connection<T> {
    type ConnectInfo = Known;

    fn connect_info(&self) -> Known {
        self.stranger.as_ref().map(Stranger::known).unwrap_or_default()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(stranger) = &mut self.stranger {
            stranger.check(cx)?;
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What is served.
struct Service {
    reaper: Reaper,
    files: files::Limit,
    /// Where there is a main command to stop.
    stop: Option<mpsc::Sender<Duration>>,
}

impl Service {
    fn new(reaper: Reaper, stop: Option<mpsc::Sender<Duration>>) -> Service {
        let files = files::limit();
        Service { reaper, files, stop }
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type ExecStream = Answers;
    type ReadFileStream = Chunks;

    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Result<Response<Answers>, Status> {
        exec::exec(&self.reaper, request).await
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<Chunks>, Status> {
        files::read(&self.files, request.into_inner()).await.map(Response::new)
    }

    async fn write_file(&self, request: Request<Streaming<WriteFileRequest>>) -> Result<Response<WriteFileResponse>, Status> {
        files::write(&self.files, request.into_inner()).await?;
        Ok(Response::new(WriteFileResponse {}))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let Some(stop) = &self.stop else {
            return Err(Status::failed_precondition("the container's main process is not the agent"));
        };
        let grace = Duration::from_secs(request.into_inner().grace_seconds.into());
        stop.send(grace).await.map_err(|_| Status::unavailable("ending"))?;
        Ok(Response::new(StopResponse {}))
    }
}
