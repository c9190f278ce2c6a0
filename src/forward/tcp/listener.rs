//! The socket that connections are accepted from: TCP or Unix.

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

/// An accepted client.
#[derive(Debug)]
pub(super) struct AcceptedClient {
    pub(super) stream: StreamSocket,
    /// The client's address; `None` on a Unix socket.
    pub(super) client: Option<SocketAddr>,
    /// The address that the client connected to; `None` on a Unix socket.
    pub(super) local: Option<SocketAddr>,
}

impl Listener {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Returns a duplicate of the socket.
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

/// A listening socket that is registered with the runtime.
#[derive(Debug)]
pub(super) enum AsyncListener {
    /// With the address that clients connect to; `None` if there may be several.
    Tcp(tokio::net::TcpListener, Option<SocketAddr>),
    Unix(tokio::net::UnixListener),
}

impl AsyncListener {
    /// Registers a listener with the runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                let local = Some(listener.local_addr()?).filter(|local| {
                    !is_wildcard(local.ip()) && !is_transparent(&SockRef::from(&listener), *local)
                });
                Self::Tcp(tokio::net::TcpListener::from_std(listener)?, local)
            }
            Listener::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// Accepts the next client.
    ///
    /// # Cancel safety
    /// No client is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<AcceptedClient> {
        match self {
            Self::Tcp(listener, local) => {
                let (stream, client) = listener.accept().await?;
                let local = local.or_else(|| stream.local_addr().ok());
                Ok(AcceptedClient {
                    stream: StreamSocket::Tcp(stream),
                    client: Some(client),
                    local,
                })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok(AcceptedClient { stream: StreamSocket::Unix(stream), client: None, local: None })
            }
        }
    }
}

/// Tells whether a listener accepts connections to other addresses than its own (`IP_TRANSPARENT`).
fn is_transparent(socket: &SockRef<'_>, local: SocketAddr) -> bool {
    let option =
        if local.is_ipv4() { socket.ip_transparent_v4() } else { socket.ip_transparent_v6() };
    option.unwrap_or(false)
}
