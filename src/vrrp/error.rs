//! What is wrong with a message, or with a configuration.

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use super::VrrpVersion;

/// Why a message is no advertisement that may be heard.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum AdvertError {
    /// It came over a router: somebody far away sent it.
    #[error("its TTL is {0} and not 255: it was forwarded")]
    InvalidTtl(u8),
    /// It ends before what it says is in it.
    #[error("{got} bytes, and it needs {needs}")]
    Truncated {
        /// How many there are.
        got: usize,
        /// How many it says there are, as far as that could be read.
        needs: usize,
    },
    /// It is of a version that is neither 2 nor 3, or of version 2 over IPv6.
    #[error("version {0} over this protocol")]
    Version(u8),
    /// Its type is not 1; there are no others.
    #[error("type {0}, and only 1 is known")]
    Type(u8),
    /// A virtual router has a number from 1 to 255.
    #[error("virtual router 0")]
    ZeroVrid,
    /// An interval of nothing.
    #[error("an interval of 0")]
    ZeroInterval,
    /// It was changed on its way.
    #[error("its checksum is wrong")]
    Checksum,
    /// It came from an address of another kind than it was sent to.
    #[error("from {0} to {1}")]
    MixedFamilies(IpAddr, IpAddr),
}

/// Why a configuration makes no router, or a message cannot be written.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VrrpConfigError {
    /// Virtual routers have numbers from 1 to 255.
    #[error("virtual router {0}: numbers go from 1 to 255")]
    Vrid(u8),
    /// Priorities go from 1 to 254; 255 is for the owner of the addresses, 0 for farewells.
    #[error("priority {0}: from 1 to 254, or 255 for the owner of the addresses")]
    Priority(u8),
    /// The interval does not fit into the messages of its version.
    #[error(
        "an interval of {interval:?}: {version} takes {least:?} to {most:?} in steps of {least:?}"
    )]
    Interval {
        /// The one that was asked for.
        interval: Duration,
        /// The version.
        version: VrrpVersion,
        /// The shortest, and the step.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// Version 2 knows IPv4 alone.
    #[error("version 2 with {0}: it knows no IPv6")]
    Ipv6InVersion2(IpAddr),
    /// A message has addresses of one kind, 255 at most.
    #[error("{count} addresses, of which one is {odd:?}: at most 255, all of one kind")]
    Addresses {
        /// How many there are.
        count: usize,
        /// One that is of another kind than the sender's.
        odd: Option<IpAddr>,
    },
}
