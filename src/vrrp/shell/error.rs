//! The error for virtual routers that cannot be started.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

use crate::vrrp::VrrpConfigError;

/// The error for virtual routers that cannot be started.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VrrpStartError {
    /// The configuration of a virtual router is not valid.
    #[error("configuration of virtual router {router_name:?} is not valid: {source}")]
    Config {
        /// The name of the virtual router.
        router_name: String,
        /// The setting that is not valid.
        source: VrrpConfigError,
    },
    /// The list of virtual routers is empty.
    #[error("there is no virtual router to start")]
    NoVirtualRouters,
    /// Two virtual routers have the same name, or the same number on the same interface.
    #[error(
        "virtual router {0:?} is configured twice: names, and numbers on an interface, are unique"
    )]
    Duplicate(String),
    /// The operating system is not Linux.
    #[error("virtual routers are supported on Linux only")]
    Unsupported,
    /// There is no interface of this name.
    #[error("there is no interface {0:?}")]
    UnknownInterface(String),
    /// The interface is not an Ethernet interface, which VRRP requires.
    #[error("interface {0:?} has no Ethernet hardware address")]
    NotEthernet(String),
    /// The process lacks a capability.
    #[error("cannot {operation}: run as root, or with {capability}")]
    Privilege {
        /// The operation that failed.
        operation: &'static str,
        /// The missing capability.
        capability: &'static str,
    },
    /// The source address is not an address of this machine.
    #[error("source address {0} is not an address of this machine")]
    SourceNotLocal(IpAddr),
    /// The interface has no address that advertisements could be sent from.
    #[error("interface {interface:?} has no {family} address to send advertisements from")]
    NoSource {
        /// The interface.
        interface: String,
        /// The kind of address that is needed.
        family: &'static str,
    },
    /// A peer's address and the source address are of different families.
    #[error("peer {0} and source address {1} are of different address families")]
    PeerFamily(IpAddr, IpAddr),
    /// The machine has a virtual address permanently, and would keep it while this router is backup.
    #[error(
        "virtual address {address} is permanently on the interface of index {interface}: \
         remove it with `ip address del`, or make this router the owner (priority 255)"
    )]
    AddressInUse {
        /// The virtual address.
        address: IpAddr,
        /// The index of the interface that has it.
        interface: u32,
    },
    /// The kernel has no macvlan support, or refuses a macvlan on this interface.
    #[error("cannot create a macvlan on {interface:?} for the virtual MAC: {source}")]
    Macvlan {
        /// The interface.
        interface: String,
        /// The system's error.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

impl VrrpStartError {
    /// Returns a conversion for the errors of an operation that may need `CAP_NET_ADMIN`.
    #[cfg(target_os = "linux")]
    pub(super) fn wrap_io(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Self::Privilege { operation, capability: "CAP_NET_ADMIN" }
            }
            _ => Self::Io { operation, source },
        }
    }
}
