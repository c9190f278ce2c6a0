//! The socket that connections are accepted from: TCP or Unix.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;

use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};

use super::socket_options::is_wildcard;
use super::stream::StreamSocket;
use crate::forward::descriptors::DescriptorPermit;
use crate::sys::shared_fd::SharedFd;

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
    /// For the client's socket and the backend's.
    pub(super) descriptors: DescriptorPermit<2>,
}

/// A listening socket that several worker threads may accept from.
#[derive(Debug)]
pub(super) struct SharedListener {
    pub(super) socket: SharedFd,
    kind: ListenerKind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum ListenerKind {
    /// With the address that clients connect to; `None` if there may be several.
    Tcp(Option<SocketAddr>),
    Unix,
}

impl SharedListener {
    /// Makes a listener non-blocking.
    pub(super) fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let local = Some(listener.local_addr()?).filter(|local| {
                    !is_wildcard(local.ip()) && !is_transparent(&SockRef::from(&listener), *local)
                });
                Self { socket: listener.into(), kind: ListenerKind::Tcp(local) }
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Self { socket: listener.into(), kind: ListenerKind::Unix }
            }
        })
    }

    /// Registers the listener with the current runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime that has I/O enabled.
    pub(super) fn register(&self) -> io::Result<AsyncListener> {
        AsyncListener::register(&self.socket, self.kind)
    }
}

/// A listening socket that is registered with the runtime of a worker thread.
#[derive(Debug)]
pub(super) struct AsyncListener {
    socket: AsyncFd<SharedFd>,
    kind: ListenerKind,
}

impl AsyncListener {
    /// Registers the socket of a listener with the current runtime.
    pub(super) fn register(socket: &SharedFd, kind: ListenerKind) -> io::Result<Self> {
        Ok(Self { socket: socket.register_readable()?, kind })
    }

    pub(super) fn kind(&self) -> ListenerKind {
        self.kind
    }

    /// Accepts the next client, once there are descriptors for it and for its backend.
    ///
    /// # Errors
    /// The error of `accept(2)`, or [`NoDescriptors`](crate::forward::descriptors::NoDescriptors).
    ///
    /// # Cancel safety
    /// No client is lost when the future is dropped.
    pub(super) async fn accept(&self) -> io::Result<AcceptedClient> {
        loop {
            let mut is_ready = self.socket.readable().await?;
            let descriptors = DescriptorPermit::try_acquire()?;
            // An error of `try_io` means that there is no client after all.
            if let Ok(accepted) = is_ready.try_io(|_| self.accept_now(descriptors)) {
                return accepted;
            }
        }
    }

    /// Accepts a client that the kernel has queued, without waiting.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); `WouldBlock` if there is no client.
    pub(super) fn try_accept(&self) -> io::Result<AcceptedClient> {
        self.accept_now(DescriptorPermit::try_acquire()?)
    }

    fn accept_now(&self, descriptors: DescriptorPermit<2>) -> io::Result<AcceptedClient> {
        let (stream, peer) =
            acceptfrom_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok(match self.kind {
            ListenerKind::Tcp(local) => {
                let stream = TcpStream::from_std(stream.into())?;
                let client = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let local = local.or_else(|| stream.local_addr().ok());
                AcceptedClient { stream: StreamSocket::Tcp(stream), client, local, descriptors }
            }
            ListenerKind::Unix => {
                let stream = StreamSocket::Unix(UnixStream::from_std(stream.into())?);
                AcceptedClient { stream, client: None, local: None, descriptors }
            }
        })
    }
}

/// Tells whether a listener accepts connections to other addresses than its own (`IP_TRANSPARENT`).
fn is_transparent(socket: &SockRef<'_>, local: SocketAddr) -> bool {
    let option =
        if local.is_ipv4() { socket.ip_transparent_v4() } else { socket.ip_transparent_v6() };
    option.unwrap_or(false)
}
