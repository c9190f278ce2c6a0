//! The keys and values of the maps that the program shares: `bpf/layout.h` in Rust.
//!
//! A test compares both by the type information in the object.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};

/// The number of a layout. It changes with every change of a struct, because maps outlive the director.
pub(super) const LAYOUT_VERSION: u32 = 8;

pub(super) const MAX_SERVICES: u32 = 4096;
pub(super) const MAX_SERVERS: u32 = 16_384;
/// The most devices whose other end packets are given to directly.
pub(super) const MAX_PEERS: usize = 4096;
/// The slots for devices whose frames the XDP program gets: each has the one of the end of its number.
pub(super) const XDP_DEVICE_SLOTS: u32 = 256;

/// An address of either family in network order; IPv4 is mapped.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Hash,
    Immutable,
    IntoBytes,
    KnownLayout,
    Ord,
    PartialEq,
    PartialOrd,
)]
#[repr(C, align(4))]
pub(super) struct RawAddress([u8; 16]);

impl From<IpAddr> for RawAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        })
    }
}

impl From<RawAddress> for IpAddr {
    fn from(address: RawAddress) -> Self {
        Self::V6(Ipv6Addr::from(address.0)).to_canonical()
    }
}

/// A port in network order.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Hash,
    Immutable,
    IntoBytes,
    KnownLayout,
    Ord,
    PartialEq,
    PartialOrd,
)]
#[repr(C, align(2))]
pub(super) struct RawPort([u8; 2]);

impl From<u16> for RawPort {
    fn from(port: u16) -> Self {
        Self(port.to_be_bytes())
    }
}

impl From<RawPort> for u16 {
    fn from(port: RawPort) -> Self {
        Self::from_be_bytes(port.0)
    }
}

/// Derives what a struct of a map needs.
macro_rules! raw_structs {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Eq, FromBytes, Hash, Immutable, IntoBytes, KnownLayout,
            Ord, PartialEq, PartialOrd,
        )]
        #[repr(C)]
        pub(super) struct $name {
            $($(#[$field_doc])* pub(super) $field: $type,)*
        }
    )*
        /// The name and the size of each struct, with the names and the offsets of its fields.
        #[cfg(test)]
        pub(super) const STRUCTS: &[(&str, usize, &[(&str, usize)])] = &[$(
            (
                stringify!($name),
                size_of::<$name>(),
                &[$((stringify!($field), std::mem::offset_of!($name, $field))),*],
            )
        ),*];
    };
}

raw_structs! {
    /// The addresses and ports of a packet.
    struct RawTuple {
        source: RawAddress,
        destination: RawAddress,
        source_port: RawPort,
        destination_port: RawPort,
        protocol: u8,
        pad: [u8; 3],
    }

    /// The tuple of a packet of IPv4, which is the key of its flow.
    struct RawTupleIpv4 {
        source: [u8; 4],
        destination: [u8; 4],
        source_port: RawPort,
        destination_port: RawPort,
        protocol: u8,
        pad: [u8; 3],
    }

    /// One direction of a flow.
    struct RawFlow {
        /// Nanoseconds of the monotonic clock.
        seen_at: u64,
        bytes: u64,
        state: u32,
        ifindex: u32,
        server: u32,
        /// What replaces an end of the tuple, or where packets go that keep theirs.
        port: RawPort,
        /// The end of the number of its place among flows that nobody is assured of.
        place: u16,
        address: RawAddress,
    }

    struct RawServiceKey {
        address: RawAddress,
        port: RawPort,
        protocol: u8,
        pad: u8,
    }

    struct RawService {
        id: u32,
        slots: u32,
        flags: u32,
        /// One of [`table_rule`].
        rule: u32,
        seed: u64,
    }

    struct RawServer {
        address: RawAddress,
        port: RawPort,
        is_available: u8,
        /// One of [`server_method`].
        method: u8,
        ifindex: u32,
        service: u32,
        /// The source of packets by a tunnel.
        source: RawAddress,
        /// The bits of the source's last word that differ by flow, in network order.
        source_spread: u32,
        /// The port of UDP that packets by a tunnel go to.
        tunnel_port: RawPort,
        pad: [u8; 2],
    }

    /// What one processor has counted of a server.
    struct RawServerCounters {
        connections: u64,
        packets_in: u64,
        bytes_in: u64,
        packets_out: u64,
        bytes_out: u64,
    }

    /// The Ethernet addresses of packets by a device that is one end of a pair.
    struct RawPeer {
        destination: [u8; 6],
        source: [u8; 6],
    }

    /// A device whose frames the XDP program gets.
    struct RawXdpDevice {
        /// 0 in a slot that no device has.
        ifindex: u32,
        mac: [u8; 6],
        /// [`XDP_DEVICE_REDIRECTS`] and those after it.
        flags: u16,
    }

    struct RawControl {
        /// Nanoseconds of the monotonic clock.
        alive_until: u64,
        tap_ifindex: u32,
        upcalls_per_window: u32,
        answers_per_window: u32,
        /// The mark of checks of the server with the number 0; 0 for none.
        first_check_mark: u32,
    }

    /// The places of flows of a family that nobody is assured of.
    struct RawPlaceRing {
        next: u64,
        places: u64,
    }

    struct RawEvent {
        at: u64,
        bytes_to_server: u64,
        bytes_to_client: u64,
        tuple: RawTuple,
        kind: u32,
        server: u32,
        service: u32,
        state: u32,
        ifindex: u32,
        pad: u32,
    }
}

/// Bits of [`RawFlow::state`].
pub(super) mod flow_state {
    pub(in crate::packet) const TO_CLIENT: u32 = 1;
    pub(in crate::packet) const ANSWERED: u32 = 2;
    pub(in crate::packet) const CLIENT_FIN: u32 = 4;
    pub(in crate::packet) const SERVER_FIN: u32 = 8;
    pub(in crate::packet) const CLIENT_RESET: u32 = 16;
    pub(in crate::packet) const SERVER_RESET: u32 = 32;
    pub(in crate::packet) const DIRECT: u32 = 64;
    pub(in crate::packet) const ASSURED: u32 = 128;
    pub(in crate::packet) const FINS: u32 = CLIENT_FIN | SERVER_FIN;
    pub(in crate::packet) const RESETS: u32 = CLIENT_RESET | SERVER_RESET;
}

/// A bit of [`RawService::flags`]: new flows that the director does not decide are refused.
pub(super) const SERVICE_SHEDS: u32 = 1;
/// A bit of [`RawService::flags`]: no process has the service, and the table decides.
pub(super) const SERVICE_UNOWNED: u32 = 2;
/// A bit of [`RawService::flags`]: the table is the scheduler's own, and decides first.
pub(super) const SERVICE_IS_KEYED: u32 = 4;
/// A bit of [`RawService::flags`]: the client's port is part of the key.
pub(super) const SERVICE_HASHES_PORT: u32 = 8;
/// A bit of [`RawService::flags`]: another machine has the address, and this one decides nothing.
pub(super) const SERVICE_IS_ELSEWHERE: u32 = 16;
/// A bit of [`RawService::flags`]: connections that are not known may be told of soon, and are not refused.
pub(super) const SERVICE_IS_NEW_HERE: u32 = 32;

/// Bits of [`RawXdpDevice::flags`], of what a driver does: it gives frames to other devices.
pub(super) const XDP_DEVICE_REDIRECTS: u16 = 1;
/// It sends those of others.
pub(super) const XDP_DEVICE_SENDS: u16 = 2;
/// Of these multi-buffer frames, too.
pub(super) const XDP_DEVICE_SENDS_MULTI_BUFFER: u16 = 4;

/// [`RawService::rule`]
pub(super) mod table_rule {
    pub(in crate::packet) const MIXED: u32 = 0;
    pub(in crate::packet) const MAGLEV_OF_IPVS: u32 = 1;
    pub(in crate::packet) const SOURCE_OF_IPVS: u32 = 2;
}

/// [`RawServer::method`]
pub(super) mod server_method {
    pub(in crate::packet) const NAT: u8 = 0;
    pub(in crate::packet) const DIRECT: u8 = 1;
    pub(in crate::packet) const IPIP: u8 = 2;
    pub(in crate::packet) const GUE: u8 = 3;
}

/// A slot of a table that no server has.
pub(super) const NO_SERVER: u32 = u32::MAX;

/// The service of a flow whose server is not known any more.
pub(super) const NO_SERVICE: u32 = u32::MAX;

/// [`RawEvent::kind`]
pub(super) mod event_kind {
    pub(in crate::packet) const DECIDED: u32 = 1;
    pub(in crate::packet) const ANSWERED: u32 = 2;
    pub(in crate::packet) const ENDED: u32 = 3;
    pub(in crate::packet) const FORGOTTEN: u32 = 4;
}

/// The protocols of a flow.
pub(super) const PROTOCOL_TCP: u8 = 6;
pub(super) const PROTOCOL_UDP: u8 = 17;

impl RawTuple {
    pub(super) fn new(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Self {
        Self {
            source: source.ip().into(),
            destination: destination.ip().into(),
            source_port: source.port().into(),
            destination_port: destination.port().into(),
            protocol,
            pad: [0; 3],
        }
    }

    pub(super) fn source(&self) -> SocketAddr {
        SocketAddr::new(self.source.into(), self.source_port.into())
    }

    pub(super) fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.destination.into(), self.destination_port.into())
    }

    /// Returns the tuple of the packets that come back.
    pub(super) const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }
}

impl RawServiceKey {
    pub(super) fn new(address: SocketAddr, protocol: u8) -> Self {
        Self { address: address.ip().into(), port: address.port().into(), protocol, pad: 0 }
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), self.port.into())
    }

    /// Returns the key under which the program knows that an address has services.
    pub(super) const fn of_address(self) -> Self {
        Self { address: self.address, port: RawPort([0; 2]), protocol: 0, pad: 0 }
    }
}

impl RawServer {
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), self.port.into())
    }

    /// Returns whether the server answers clients by itself.
    pub(super) const fn is_direct(&self) -> bool {
        self.method != server_method::NAT
    }

    /// Returns how packets reach it.
    pub(super) fn forwarding_method(&self) -> ForwardingMethod {
        match self.method {
            server_method::NAT => ForwardingMethod::Nat,
            server_method::IPIP => ForwardingMethod::Tunnel(TunnelKind::Ipip),
            server_method::GUE => {
                let (port, checksum) = (self.tunnel_port.into(), TunnelChecksum::None);
                ForwardingMethod::Tunnel(TunnelKind::Gue { port, checksum })
            }
            _ => ForwardingMethod::DirectRouting,
        }
    }

    /// Returns whether both are the same server of the same service, which packets reach in the same way.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let source = RawAddress::default();
        let state =
            |it: &Self| Self { is_available: 0, ifindex: 0, source, source_spread: 0, ..*it };
        state(self) == state(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_tuples_return() {
        let client: SocketAddr = "192.0.2.7:5000".parse().unwrap();
        let service: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let tuple = RawTuple::new(client, service, PROTOCOL_TCP);
        assert_eq!((tuple.source(), tuple.destination()), (client, service));
        assert_eq!(tuple.reversed().source(), service);
        assert_eq!(tuple.reversed().reversed(), tuple);
        assert_eq!(tuple.source_port.as_bytes(), [0x13, 0x88], "network order");
    }
}
