//! TCP listeners.

use rustix::net::sockopt::set_ipv6_v6only;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Delay after a failed `accept`.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Listens on `address`. The unspecified IPv6 address takes connections of both families; without IPv6 it means IPv4
/// alone. Must be called inside a runtime.
///
/// # Errors
/// The address cannot be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let both_families = address.is_ipv6() && address.ip().is_unspecified();
    let listener = bind(address, both_families);
    if both_families {
        return listener.or_else(|_| bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), false));
    }
    listener
}

fn bind(address: SocketAddr, both_families: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() {
        TcpSocket::new_v6()
    } else {
        TcpSocket::new_v4()
    }?;
    if both_families {
        set_ipv6_v6only(&socket, false)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection, once there is a permit for it. A failed `accept` is reported and retried: the process may be
/// out of file descriptors, or the client may be gone again. None when `slots` is closed.
pub async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    report: impl Fn(&io::Error),
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Fails only for a connection that is already broken; its first read will show that.
                let _ = stream.set_nodelay(true);
                return Some((stream, peer, slot));
            }
            Err(error) => report(&error),
        }
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_unspecified_address_takes_ipv4_connections() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let slots = Arc::new(Semaphore::new(1));
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let (_, peer, slot) = accept(&listener, &slots, |error| panic!("{error}")).await.unwrap();
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
        assert_eq!(slots.available_permits(), 0);
        drop(slot);
        slots.close();
        assert!(accept(&listener, &slots, |error| panic!("{error}")).await.is_none());
    }
}
