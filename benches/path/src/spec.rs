//! What is measured, and of whom.

use clap::ValueEnum;
use lvs::engine::{ForwardingMethod, TunnelChecksum, TunnelKind};

/// The port of GUE that the servers' program knows.
const GUE_PORT: u16 = 6080;

/// A part of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Measure {
    /// Small requests over open connections.
    Request,
    /// One request a connection.
    Connection,
    /// Data from the server.
    Bulk,
    /// The time of the packet engine's program for a packet.
    Program,
    /// Two million flows.
    Flows,
}

impl Measure {
    /// Those that compare subjects.
    pub(crate) const COMPARED: [Self; 3] = [Self::Request, Self::Connection, Self::Bulk];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Request => "keep-alive, small requests, 64 connections",
            Self::Connection => "one request a connection, 64 at a time",
            Self::Bulk => "bulk, server to client, 1 stream",
            Self::Program => "the program of the packet engine",
            Self::Flows => "two million flows",
        }
    }

    /// Returns the names of the cost and of the rate.
    pub(crate) fn units(self) -> (&'static str, &'static str) {
        match self {
            Self::Request => ("CPU us/request", "requests/s"),
            Self::Connection => ("CPU us/connection", "connections/s"),
            Self::Bulk => ("CPU s/GB", "Gbit/s"),
            Self::Program | Self::Flows => ("ns/packet", "packets/s"),
        }
    }

    /// Returns the nanoseconds a unit of a cost of 1, and the factor from units a second to the rate.
    pub(crate) fn scale(self) -> (f64, f64) {
        match self {
            // A unit is an octet, and nanoseconds an octet are seconds a gigabyte.
            Self::Bulk => (1.0, 8e-9),
            _ => (1e3, 1.0),
        }
    }
}

/// How a packet leaves the director's machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Redirect {
    /// The stack routes it.
    Stack,
    /// The program gives it to the device, and the kernel finds the neighbour.
    Neighbour,
    /// The program gives it to the other end of the pair of devices, in its namespace.
    Peer,
}

impl Redirect {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stack => "stack",
            Self::Neighbour => "redirect_neigh",
            Self::Peer => "redirect_peer",
        }
    }
}

/// How the packet engine reaches the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum PacketMethod {
    Nat,
    DirectRouting,
    Ipip,
    Gue,
}

impl PacketMethod {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::DirectRouting => "direct-routing",
            Self::Ipip => "ipip",
            Self::Gue => "gue",
        }
    }

    /// Returns whether the server answers the client by itself, though its requests pass a director.
    pub(crate) fn answers_directly(self) -> bool {
        self != Self::Nat
    }

    /// Returns whether the server has to take packets out of others.
    pub(crate) fn is_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gue)
    }
}

impl From<PacketMethod> for ForwardingMethod {
    fn from(method: PacketMethod) -> Self {
        match method {
            PacketMethod::Nat => Self::Nat,
            PacketMethod::DirectRouting => Self::DirectRouting,
            PacketMethod::Ipip => Self::Tunnel(TunnelKind::Ipip),
            PacketMethod::Gue => {
                Self::Tunnel(TunnelKind::Gue { port: GUE_PORT, checksum: TunnelChecksum::None })
            }
        }
    }
}

/// What is between the client and the server, in the order of measurements.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Subject {
    /// Nothing: one wire.
    Direct,
    /// A router.
    Forwarding,
    /// This crate's packet engine, whose table decides connections.
    PacketTable,
    /// This crate's packet engine, which asks `wlc` for each connection.
    PacketUpcall,
    /// [`Self::PacketTable`], which gives packets to the other ends of pairs.
    PacketTablePeer,
    /// [`Self::PacketUpcall`], which gives packets to the other ends of pairs.
    PacketUpcallPeer,
    /// [`Self::PacketTable`] by direct routing: the server answers the client by a wire of their own.
    PacketDirect,
    /// [`Self::PacketDirect`], which gives packets to the other ends of pairs.
    PacketDirectPeer,
    /// [`Self::PacketDirect`] by a tunnel of IP in IP in place of direct routing.
    PacketIpip,
    /// [`Self::PacketIpip`], which gives packets to the other ends of pairs.
    PacketIpipPeer,
    /// [`Self::PacketIpip`] by GUE.
    PacketGue,
    /// A second router: differences from the first are noise. What is compared with them is between them.
    ForwardingAa,
    /// The kernel's connection tracking, which `nft` tells to spread connections.
    Nft,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
    /// This crate's forwarder, one worker thread.
    Proxy,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Forwarding => "forwarding",
            Self::ForwardingAa => "forwarding-aa",
            Self::Nft => "nft",
            Self::Haproxy => "haproxy",
            Self::Proxy => "proxy",
            Self::PacketTable => "packet-table",
            Self::PacketUpcall => "packet-upcall",
            Self::PacketTablePeer => "packet-table-peer",
            Self::PacketUpcallPeer => "packet-upcall-peer",
            Self::PacketDirect => "packet-direct",
            Self::PacketDirectPeer => "packet-direct-peer",
            Self::PacketIpip => "packet-ipip",
            Self::PacketIpipPeer => "packet-ipip-peer",
            Self::PacketGue => "packet-gue",
        }
    }

    /// Returns how packets leave the director; `None` where none pass one.
    pub(crate) fn redirect(self) -> Option<Redirect> {
        match self {
            Self::Direct | Self::Haproxy | Self::Proxy => None,
            Self::Forwarding | Self::ForwardingAa | Self::Nft => Some(Redirect::Stack),
            Self::PacketTable
            | Self::PacketUpcall
            | Self::PacketDirect
            | Self::PacketIpip
            | Self::PacketGue => Some(Redirect::Neighbour),
            Self::PacketTablePeer
            | Self::PacketUpcallPeer
            | Self::PacketDirectPeer
            | Self::PacketIpipPeer => Some(Redirect::Peer),
        }
    }

    /// Returns whether the packet engine asks the scheduler; `None` for other engines.
    pub(crate) fn asks_scheduler(self) -> Option<bool> {
        match self {
            Self::PacketTable
            | Self::PacketTablePeer
            | Self::PacketDirect
            | Self::PacketDirectPeer
            | Self::PacketIpip
            | Self::PacketIpipPeer
            | Self::PacketGue => Some(false),
            Self::PacketUpcall | Self::PacketUpcallPeer => Some(true),
            _ => None,
        }
    }

    /// Returns how the packet engine is to reach the server.
    pub(crate) fn method(self) -> PacketMethod {
        match self {
            Self::PacketDirect | Self::PacketDirectPeer => PacketMethod::DirectRouting,
            Self::PacketIpip | Self::PacketIpipPeer => PacketMethod::Ipip,
            Self::PacketGue => PacketMethod::Gue,
            _ => PacketMethod::Nat,
        }
    }
}
