//! The error for announcements that cannot be started.

use std::io;
use std::net::IpAddr;

use thiserror::Error;

/// The error for an [`Announcer`](super::Announcer) that cannot be started or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnnounceStartError {
    /// A setting is not valid.
    #[error("`{setting}` is not valid: {reason}")]
    Setting {
        /// The setting, by the name of its method of [`AnnouncerConfig`](super::AnnouncerConfig).
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An interface has an address that is to be announced.
    #[error(
        "address {address} is on the interface of index {interface}: remove it with `ip address del`; an announced \
         address is none of an interface"
    )]
    AddressOfInterface {
        /// The address.
        address: IpAddr,
        /// The index of the interface.
        interface: u32,
    },
    /// The process lacks a capability.
    #[error("cannot {operation}: run as root, or with CAP_NET_ADMIN")]
    Privilege {
        /// The operation that failed.
        operation: &'static str,
    },
    /// There is no `/dev/net/tun`.
    #[error(
        "there is no /dev/net/tun, which announcements need: load the kernel module `tun`, or give the container \
         the device"
    )]
    NoTun,
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    Io {
        /// The operation that failed.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The thread of the announcer has ended, or does not answer.
    #[error("the thread of the announcements does not answer")]
    NoAnswer,
}

impl AnnounceStartError {
    /// Returns a conversion for the errors of an operation that may need `CAP_NET_ADMIN`.
    pub(super) fn wrap_io(operation: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Privilege { operation },
            _ => Self::Io { operation, source },
        }
    }
}
