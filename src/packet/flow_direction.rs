//! A direction of a flow, as the program has it.

use std::net::{IpAddr, Ipv4Addr};

use super::layout::{RawAddress, RawFlow, RawServer, RawTuple, RawTupleIpv4, flow_state};

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FlowDirection {
    /// The addresses and ports that its packets come with.
    pub(super) tuple: RawTuple,
    /// What they have after the program: one end is another. By direct routing they keep both, and the destination
    /// here is the server that they go to.
    pub(super) rewritten: RawTuple,
    /// When the last one passed, in nanoseconds of the monotonic clock.
    pub(super) seen_at: u64,
    pub(super) bytes: u64,
    /// The device that they leave by.
    pub(super) ifindex: u32,
    pub(super) server: u32,
    /// Bits of [`flow_state`].
    pub(super) state: u32,
    /// Of the direction to the server: the end of the number of the flow's place among those that nobody is assured of.
    pub(super) place: u16,
}

impl FlowDirection {
    /// Returns both directions of a new flow from the client's tuple to a server, given with its number. The client's
    /// packets come in by the device. By direct routing there is no direction to the client.
    pub(super) const fn of_new_flow(
        tuple: RawTuple,
        (server, raw): (u32, &RawServer),
        ifindex: u32,
        now: u64,
    ) -> (Self, Option<Self>) {
        let rewritten = RawTuple { destination: raw.address, destination_port: raw.port, ..tuple };
        let there = Self {
            tuple,
            rewritten,
            seen_at: now,
            bytes: 0,
            ifindex: raw.ifindex,
            server,
            state: 0,
            place: 0,
        };
        if raw.is_direct() {
            return (Self { state: flow_state::DIRECT, ..there }, None);
        }
        let back = Self {
            tuple: rewritten.reversed(),
            rewritten: tuple.reversed(),
            ifindex,
            state: flow_state::TO_CLIENT,
            ..there
        };
        (there, Some(back))
    }

    /// Returns the tuple of the packets that come back, of a flow that has both directions.
    pub(super) const fn back_tuple(&self) -> RawTuple {
        self.rewritten.reversed()
    }

    pub(super) const fn is_to_client(&self) -> bool {
        self.state & flow_state::TO_CLIENT != 0
    }

    /// Returns whether the server answers the client by itself.
    pub(super) const fn is_direct(&self) -> bool {
        self.state & flow_state::DIRECT != 0
    }

    /// Returns whether both ends have ended the flow, as far as is seen of them, or one has reset it.
    pub(super) const fn is_over(&self) -> bool {
        let ends = if self.is_direct() { flow_state::CLIENT_FIN } else { flow_state::FINS };
        self.state & ends == ends || self.state & flow_state::RESETS != 0
    }

    pub(super) const fn from_raw(tuple: RawTuple, raw: RawFlow) -> Self {
        let RawFlow { seen_at, bytes, state, ifindex, server, port, place, address } = raw;
        let rewritten = tuple;
        let mut this = Self { tuple, rewritten, seen_at, bytes, ifindex, server, state, place };
        if this.is_to_client() {
            (this.rewritten.source, this.rewritten.source_port) = (address, port);
        } else {
            (this.rewritten.destination, this.rewritten.destination_port) = (address, port);
        }
        this
    }

    pub(super) const fn to_raw(self) -> RawFlow {
        let Self { seen_at, bytes, state, ifindex, server, place, rewritten, .. } = self;
        let RawTuple { source, destination, source_port, destination_port, .. } = rewritten;
        let (address, port) = if self.is_to_client() {
            (source, source_port)
        } else {
            (destination, destination_port)
        };
        RawFlow { seen_at, bytes, state, ifindex, server, port, place, address }
    }
}

impl RawTupleIpv4 {
    /// Returns a tuple in short; `None` for one of IPv6.
    pub(super) fn from_tuple(tuple: &RawTuple) -> Option<Self> {
        let IpAddr::V4(destination) = tuple.destination.into() else { return None };
        // Both ends of a flow have one family: the engine refuses others.
        let IpAddr::V4(source) = tuple.source.into() else { return None };
        Some(Self {
            source: source.octets(),
            destination: destination.octets(),
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            protocol: tuple.protocol,
            pad: [0; 3],
        })
    }
}

impl From<RawTupleIpv4> for RawTuple {
    fn from(tuple: RawTupleIpv4) -> Self {
        let mapped = |octets: [u8; 4]| RawAddress::from(IpAddr::V4(Ipv4Addr::from(octets)));
        Self {
            source: mapped(tuple.source),
            destination: mapped(tuple.destination),
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            protocol: tuple.protocol,
            pad: [0; 3],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::packet::layout::{PROTOCOL_TCP, server_method};

    #[test]
    fn directions_return_as_they_were_stored() {
        for (client, service, server) in [
            ("192.0.2.7:5000", "198.51.100.1:80", "10.0.0.3:8080"),
            ("[2001:db8::7]:5000", "[2001:db8::1]:80", "[fd00::3]:8080"),
        ] {
            let [client, service, server]: [SocketAddr; 3] =
                [client, service, server].map(|it| it.parse().unwrap());
            let tuple = RawTuple::new(client, service, PROTOCOL_TCP);
            let raw = RawServer {
                address: server.ip().into(),
                port: server.port().into(),
                ifindex: 9,
                ..RawServer::default()
            };
            let (there, back) = FlowDirection::of_new_flow(tuple, (16_383, &raw), 7, 1);
            let back = back.expect("a way back");
            assert_eq!((there.ifindex, back.ifindex), (9, 7));
            assert_eq!((there.rewritten.source(), there.rewritten.destination()), (client, server));
            assert_eq!((back.tuple.source(), back.tuple.destination()), (server, client));
            assert_eq!((back.rewritten.source(), back.back_tuple()), (service, tuple));
            let raw = RawServer { method: server_method::DIRECT, ..raw };
            let (direct, no_way_back) = FlowDirection::of_new_flow(tuple, (3, &raw), 7, 1);
            assert_eq!((direct.is_direct(), direct.rewritten.destination()), (true, server));
            assert_eq!(no_way_back, None);
            for direction in [there, back, direct] {
                let stored = FlowDirection { bytes: 3, place: 7, ..direction };
                let tuple = RawTupleIpv4::from_tuple(&stored.tuple).map(RawTuple::from);
                assert_eq!(tuple.is_some(), client.is_ipv4());
                let tuple = tuple.unwrap_or(stored.tuple);
                assert_eq!(FlowDirection::from_raw(tuple, stored.to_raw()), stored);
            }
        }
    }

    #[test]
    fn a_flow_is_over_by_both_fins_or_one_reset() {
        let tuple = RawTuple::default();
        let (direction, _) = FlowDirection::of_new_flow(tuple, (0, &RawServer::default()), 0, 0);
        let is_over = |state| FlowDirection { state, ..direction }.is_over();
        assert!(!is_over(flow_state::CLIENT_FIN | flow_state::ANSWERED));
        assert!(is_over(flow_state::FINS | flow_state::TO_CLIENT));
        assert!(is_over(flow_state::SERVER_RESET) && is_over(flow_state::CLIENT_RESET));
        // The server's is not seen.
        assert!(is_over(flow_state::CLIENT_FIN | flow_state::DIRECT));
        assert!(!is_over(flow_state::ANSWERED | flow_state::DIRECT));
    }
}
