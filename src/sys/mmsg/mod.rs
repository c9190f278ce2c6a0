//! Many datagrams with one system call: `recvmmsg(2)` and `sendmmsg(2)`.
//!
//! [`DatagramBatch`] receives datagrams, with the sender and the local address of each (RFC 3542 section
//! 6 for IPv6, `ip(7)` for IPv4). [`DatagramSender`] sends slices of a batch without copying them.
//! Several slices of one size can go as one message that the kernel segments (`UDP_SEGMENT`, `udp(7)`),
//! and datagrams that the kernel coalesced (`UDP_GRO`) are received as one.
#![expect(unsafe_code, reason = "no safe crate offers batched datagrams with control messages")]

mod batch;
mod control;
mod header;
mod received;
mod send;
mod sockaddr;

pub(crate) use self::batch::{DatagramBatch, enable_pktinfo, set_udp_gro};
pub(crate) use self::received::ReceivedDatagram;
pub(crate) use self::send::{
    DatagramSender, DatagramSlice, MAX_SEGMENTED_BYTES, MAX_SEGMENTS, OutgoingMessage,
};

#[cfg(all(test, not(lvs_loom)))]
mod tests;
