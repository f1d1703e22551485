//! A connection of a gRPC server.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::keyed_limit::KeyedLimit;
use super::unauthenticated::{Authenticated, UnauthenticatedConn};

/// The other end of a connection. Each request of the connection has it in its extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    address: Option<SocketAddr>,
    authenticated: Authenticated,
}

impl Peer {
    /// The address, unless the connection is not a socket.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// An authenticated call has arrived: the connection may stay.
    pub fn mark_authenticated(&self) {
        self.authenticated.set();
    }

    /// As [`Peer::mark_authenticated`], unless `owner` has `max` connections already: then false. The connection counts
    /// for the owner of its first such call.
    pub fn mark_authenticated_for(&self, owner: &str, limit: &KeyedLimit<String>, max: usize) -> bool {
        self.authenticated.set_for(owner, limit, max)
    }
}

/// A connection and what it holds for as long as it is open.
pub struct Connection<T, S> {
    io: T,
    peer: Peer,
    unauthenticated: Option<UnauthenticatedConn>,
    _slot: S,
}

impl<T, S> Connection<T, S> {
    /// A connection that fails if no authenticated call arrives in time. `slot` is dropped with the connection.
    pub fn new(io: T, address: SocketAddr, unauthenticated: UnauthenticatedConn, slot: S) -> Connection<T, S> {
        Connection {
            io,
            peer: Peer {
                address: Some(address),
                authenticated: unauthenticated.authenticated(),
            },
            unauthenticated: Some(unauthenticated),
            _slot: slot,
        }
    }

    /// A connection whose other end does not have to authenticate.
    pub fn trusted(io: T, slot: S) -> Connection<T, S> {
        Connection {
            io,
            peer: Peer {
                address: None,
                authenticated: Authenticated::default(),
            },
            unauthenticated: None,
            _slot: slot,
        }
    }
}

impl<T, S> Connected for Connection<T, S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<T: AsyncRead + Unpin, S: Unpin> AsyncRead for Connection<T, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(unauthenticated) = &mut self.unauthenticated {
            unauthenticated.check(cx)?;
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, S: Unpin> AsyncWrite for Connection<T, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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
