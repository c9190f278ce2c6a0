//! What is missing when a virtual router cannot be run.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::vrrp::VrrpConfigError;

/// Why virtual routers cannot be run here.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VrrpStartError {
    /// What was asked for makes no sense.
    #[error("virtual router {router:?}: {source}")]
    Config {
        /// Which router.
        router: String,
        /// Why.
        source: VrrpConfigError,
    },
    /// There is nothing to run.
    #[error("no virtual router")]
    NoVirtualRouters,
    /// Two of them have the same name, or the same number on the same interface.
    #[error("virtual router {0:?} is there twice")]
    Duplicate(String),
    /// Only Linux has what it takes.
    #[error("virtual routers run on Linux alone")]
    Unsupported,
    /// There is no such interface.
    #[error("there is no interface {0:?}")]
    UnknownInterface(String),
    /// It is no Ethernet, as VRRP needs.
    #[error("interface {0:?} has no hardware address of Ethernet")]
    NotEthernet(String),
    /// The process may not do what it must.
    #[error("cannot {what}: that takes root, or {capability}")]
    Privilege {
        /// What.
        what: &'static str,
        /// What it would take.
        capability: &'static str,
    },
    /// The address that it is to send from is not one of this machine.
    #[error("{0} is no address of this machine")]
    SourceNotLocal(IpAddr),
    /// The interface has no address to send from.
    #[error("interface {interface:?} has no {family} address to send from")]
    NoSource {
        /// Which.
        interface: String,
        /// What it would need.
        family: &'static str,
    },
    /// A peer's address is of another kind than the one that it is to send from.
    #[error("peer {0} cannot be reached from {1}")]
    PeerFamily(IpAddr, IpAddr),
    /// A virtual address is here for good already: put there by somebody else, who would keep it when
    /// this router is no master.
    #[error(
        "virtual address {address} is on interface {interface} already, and for good: \
             `ip address del` it there, or make this router its owner (priority 255)"
    )]
    AddressInUse {
        /// Which.
        address: IpAddr,
        /// The number of the interface that has it.
        interface: u32,
    },
    /// The kernel has no macvlan, or will not put one on this interface.
    #[error("no macvlan for a virtual MAC on {interface:?}")]
    Macvlan {
        /// Which.
        interface: String,
        /// What it said.
        source: io::Error,
    },
    /// The system would not do something.
    #[error("cannot {what}")]
    Io {
        /// What.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl VrrpStartError {
    /// That the system would not do this; or why it may not, if that is the reason.
    #[cfg(target_os = "linux")]
    pub(super) fn wrap_io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Privilege { what, capability: "CAP_NET_ADMIN" }
            }
            _ => Self::Io { what, source },
        }
    }
}
