//! Listening sockets that are handed from one owner to the next: from a service manager, from a
//! director that this one succeeds, or from a frontend that a reload replaces.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

use super::config::{ListenAddress, ServiceProtocol};
use super::error::DirectorError;
use crate::forward::handover::{HandoverError, from_environment};

/// How many connections to an admin or sync listener may wait in the kernel.
const LISTEN_BACKLOG: i32 = 1024;

/// Sockets that are open before the director needs them, opened by a service manager or by the
/// director that this one succeeds. A service uses those that are bound to its addresses.
#[derive(Debug, Default)]
pub struct ListeningSockets {
    open: Vec<(ServiceProtocol, ListenAddress, OwnedFd)>,
}

impl ListeningSockets {
    /// Sorts descriptors by the address that they are bound to, and closes those that are neither
    /// TCP or Unix listeners nor UDP sockets.
    pub(super) fn from_descriptors(descriptors: impl IntoIterator<Item = OwnedFd>) -> Self {
        let classify = |descriptor: OwnedFd| {
            let socket = SockRef::from(&descriptor);
            let address = socket.local_addr().ok()?;
            let listen = match socket.domain().ok()? {
                Domain::UNIX => ListenAddress::Unix(address.as_pathname()?.to_owned()),
                _ => ListenAddress::Address(address.as_socket()?),
            };
            let protocol = match socket.r#type().ok()? {
                Type::STREAM if socket.is_listener().ok()? => ServiceProtocol::Tcp,
                Type::DGRAM => ServiceProtocol::Udp,
                _ => return None,
            };
            Some((protocol, listen, descriptor))
        };
        Self { open: descriptors.into_iter().filter_map(classify).collect() }
    }

    /// Returns the sockets that a service manager passed to this process (systemd's `LISTEN_FDS`).
    ///
    /// # Errors
    /// [`HandoverError`] if the environment variables are malformed.
    pub fn from_environment() -> Result<Self, HandoverError> {
        Ok(Self::from_descriptors(
            from_environment()?.into_iter().map(|(_, descriptor)| descriptor),
        ))
    }

    /// Adds sockets, all of one service's address.
    pub(super) fn add(
        &mut self,
        protocol: ServiceProtocol,
        listen: &ListenAddress,
        descriptors: Vec<OwnedFd>,
    ) {
        let keyed = descriptors.into_iter().map(|socket| (protocol, listen.clone(), socket));
        self.open.extend(keyed);
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.open.extend(others.open);
    }

    /// Iterates over all descriptors.
    pub(super) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.open.iter().map(|(_, _, descriptor)| descriptor)
    }

    /// Removes and returns the sockets of an address.
    pub(super) fn take_for(
        &mut self,
        protocol: ServiceProtocol,
        listen: &ListenAddress,
    ) -> Vec<OwnedFd> {
        let matches = |entry: &mut (ServiceProtocol, ListenAddress, OwnedFd)| {
            (entry.0, &entry.1) == (protocol, listen)
        };
        self.open.extract_if(.., matches).map(|(_, _, descriptor)| descriptor).collect()
    }

    /// Lets a new socket share its port with those of these sockets that its address overlaps, until they
    /// are closed: a service moves from a wildcard to a single address, or back. Returns whether there
    /// are any.
    pub(super) fn share_port(&self, protocol: ServiceProtocol, listen: &ListenAddress) -> bool {
        let overlapping = self
            .open
            .iter()
            .filter(|(open_protocol, open, _)| *open_protocol == protocol && open.overlaps(listen));
        let share = |is_any: bool, (_, _, socket): &(_, _, OwnedFd)| {
            SockRef::from(socket).set_reuse_port(true).is_ok() || is_any
        };
        overlapping.fold(false, share)
    }

    /// Returns the addresses of the sockets that no service has claimed.
    pub(super) fn unclaimed_addresses(&self) -> impl Iterator<Item = String> {
        self.open.iter().map(|(_, listen, _)| listen.to_string())
    }
}

/// Returns a TCP listener on an address: the running one if it was opened for this address, else one
/// of the handed-over sockets, else a new one. `table` names the configuration's table in an error.
pub(super) fn open_listener(
    table: &'static str,
    running: Option<(SocketAddr, Arc<TcpListener>)>,
    address: SocketAddr,
    sockets: &mut ListeningSockets,
) -> Result<Arc<TcpListener>, DirectorError> {
    let listen = ListenAddress::Address(address);
    let mut is_shared = false;
    if let Some((opened_for, listener)) = running {
        if opened_for == address {
            return Ok(listener);
        }
        // The listener that is replaced is closed when the new one serves.
        is_shared = listen.overlaps(&ListenAddress::Address(opened_for))
            && SockRef::from(&*listener).set_reuse_port(true).is_ok();
    }
    let inherited = sockets.take_for(ServiceProtocol::Tcp, &listen).into_iter().next();
    is_shared |= sockets.share_port(ServiceProtocol::Tcp, &listen);
    let listener = match inherited.map(std::net::TcpListener::from) {
        Some(inherited) => {
            inherited.set_nonblocking(true).and_then(|()| TcpListener::from_std(inherited))
        }
        None => bind_listener(address, is_shared),
    };
    listener.map(Arc::new).map_err(|source| DirectorError::Listen { table, address, source })
}

fn bind_listener(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}
