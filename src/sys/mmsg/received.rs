//! A datagram that was received.

use std::net::{IpAddr, SocketAddr};

/// A datagram that was received, without its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ReceivedDatagram {
    /// The sender; `None` on a connected socket.
    pub(crate) peer: Option<SocketAddr>,
    /// The address to which it was sent, if the socket [reports](super::enable_pktinfo) it.
    pub(crate) local: Option<IpAddr>,
    pub(crate) len: usize,
    /// The size of each of the datagrams that the kernel coalesced (the last may be shorter); 0 for a
    /// single datagram.
    pub(crate) segment_size: usize,
    /// The datagram was longer than its buffer.
    pub(crate) truncated: bool,
}
