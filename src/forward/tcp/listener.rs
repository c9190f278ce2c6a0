//! The socket that connections are taken from: TCP or Unix.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;

use socket2::SockRef;

use super::socket_options::is_wildcard;
use super::stream::StreamSocket;

/// A listening socket of either kind.
#[derive(Debug)]
pub(in crate::forward) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client, where it came from, and the address that it used; addresses are unknown for a Unix
/// socket's.
pub(super) type AcceptedClient = (StreamSocket, Option<SocketAddr>, Option<SocketAddr>);

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// The same socket once more.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// A listening socket that the runtime watches.
#[derive(Debug)]
pub(super) enum AsyncListener {
    /// With the address that all clients use, where there is only one.
    Tcp(tokio::net::TcpListener, Option<SocketAddr>),
    Unix(tokio::net::UnixListener),
}

impl AsyncListener {
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                let local = Some(listener.local_addr()?).filter(|local| {
                    !is_wildcard(local.ip()) && !SockRef::from(&listener).is_transparent(*local)
                });
                Self::Tcp(tokio::net::TcpListener::from_std(listener)?, local)
            }
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// The next client.
    ///
    /// # Cancel safety
    /// No client is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<AcceptedClient> {
        match self {
            Self::Tcp(listener, local) => {
                let (stream, client) = listener.accept().await?;
                let local = local.or_else(|| stream.local_addr().ok());
                Ok((StreamSocket::Tcp(stream), Some(client), local))
            }
            Self::Unix(listener) => {
                Ok((StreamSocket::Unix(listener.accept().await?.0), None, None))
            }
        }
    }
}

trait SockRefExt {
    fn is_transparent(&self, local: SocketAddr) -> bool;
}

impl SockRefExt for SockRef<'_> {
    /// Takes such a listener connections for other addresses than its own?
    fn is_transparent(&self, local: SocketAddr) -> bool {
        let asked =
            if local.is_ipv4() { self.ip_transparent_v4() } else { self.ip_transparent_v6() };
        asked.unwrap_or(false)
    }
}
