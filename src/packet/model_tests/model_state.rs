//! What the model knows: services, servers, flows and events, in plain Rust.

use std::net::SocketAddr;

use super::parsed::PacketKey;
use crate::packet::layout::{flow_state, server_method};

/// The device on which programs are tested: the loopback device.
pub(super) const TEST_DEVICE: u32 = 1;

#[derive(Clone, Debug)]
pub(super) struct ModelService {
    pub(super) id: u32,
    pub(super) sheds: bool,
    /// Whether its table decides before the director.
    pub(super) is_keyed: bool,
    /// Whether a process has it.
    pub(super) is_owned: bool,
    /// Whether another machine has its address.
    pub(super) is_elsewhere: bool,
    /// Whether this machine has its address since a moment ago.
    pub(super) is_new_here: bool,
    /// The servers of its table.
    pub(super) slots: Vec<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct ModelServer {
    pub(super) address: SocketAddr,
    pub(super) service: u32,
    /// One of [`server_method`].
    pub(super) method: u8,
    pub(super) is_available: bool,
    pub(super) has_route: bool,
    /// The MTU of the device to it; `None` for one that is not there any more.
    pub(super) mtu: Option<usize>,
    /// The bits of the outer source address that differ by flow, of its last 32.
    pub(super) source_spread: u32,
}

impl ModelServer {
    /// Returns whether packets go to it with their addresses, and it answers the client by itself.
    pub(super) fn is_direct(&self) -> bool {
        self.method != server_method::NAT
    }

    /// Returns the MTU of the device of the route to it.
    pub(super) fn route_mtu(&self) -> Option<usize> {
        self.mtu.filter(|_| self.has_route)
    }
}

/// One direction of a flow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ModelFlow {
    /// What its packets have after they are rewritten; by direct routing, where they go.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) server: u32,
    pub(super) service: u32,
    /// The bits of [`flow_state`].
    pub(super) state: u32,
    /// Octets of its packets.
    pub(super) bytes: u64,
    /// The end of the number of its place.
    pub(super) place: u16,
    /// The MTU of the device that it was to leave by when it was made; `None` for one that is not there any more.
    pub(super) mtu: Option<usize>,
}

/// The tap device at which the director gets what it decides.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum TapDevice {
    #[default]
    None,
    /// One that is gone, with its process.
    Gone,
    Present,
    /// The device that the tests' frames come from: they are what the director gives back.
    Test,
}

/// The director, as the program knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ModelDirector {
    pub(super) is_alive: bool,
    pub(super) tap: TapDevice,
    /// Whether it may be asked for any new flow, or for none.
    pub(super) has_budget: bool,
    /// Whether packets may be answered by ICMP errors.
    pub(super) answers: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ModelEvent {
    pub(super) kind: u32,
    /// The direction to the server.
    pub(super) key: PacketKey,
    pub(super) server: u32,
    pub(super) service: u32,
    pub(super) state: u32,
    pub(super) ifindex: u32,
    /// Octets to the server and to the client.
    pub(super) bytes: [u64; 2],
}

impl ModelFlow {
    pub(super) fn is_to_client(&self) -> bool {
        self.state & flow_state::TO_CLIENT != 0
    }

    pub(super) fn is_direct(&self) -> bool {
        self.state & flow_state::DIRECT != 0
    }

    pub(super) fn is_over(&self) -> bool {
        let has = |bits| self.state & bits == bits;
        has(flow_state::FINS)
            || has(flow_state::DIRECT | flow_state::CLIENT_FIN)
            || has(flow_state::CLIENT_RESET)
            || has(flow_state::SERVER_RESET)
    }

    pub(super) fn has_begun_to_end(&self) -> bool {
        self.state & (flow_state::FINS | flow_state::RESETS) != 0
    }

    /// Returns the key of the packets that come back.
    pub(super) fn back(&self, protocol: u8) -> PacketKey {
        (self.destination, self.source, protocol)
    }
}
