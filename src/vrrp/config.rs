//! The settings of an election, the protocol versions, and the error for settings that are refused.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

/// The priority of the router that owns the virtual addresses.
pub(super) const OWNER_PRIORITY: u8 = 255;

/// The version of the protocol.
#[derive(
    Clone, Copy, Debug, Default, serde::Deserialize, Eq, Hash, PartialEq, serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, intervals in seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, intervals in hundredths of a second.
    #[default]
    V3,
}

impl VrrpVersion {
    /// Returns the shortest interval, which is also the step, and the longest.
    const fn interval_range(self) -> (Duration, Duration) {
        match self {
            Self::V2 => (Duration::from_secs(1), Duration::from_secs(255)),
            Self::V3 => (Duration::from_millis(10), Duration::from_millis(40_950)),
        }
    }

    /// Converts an interval into the units of the message field.
    pub(super) fn encode_interval(self, interval: Duration) -> Result<u16, VrrpConfigError> {
        let (min, max) = self.interval_range();
        let is_in_range = interval >= min && interval <= max;
        if !is_in_range || !interval.as_nanos().is_multiple_of(min.as_nanos()) {
            return Err(VrrpConfigError::Interval { interval, version: self, min, max });
        }
        Ok((interval.as_nanos() / min.as_nanos()) as u16)
    }
}

impl fmt::Display for VrrpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "version 2",
            Self::V3 => "version 3",
        })
    }
}

/// Whether a backup replaces a master of lower priority.
#[derive(Clone, Copy, Debug, Default, serde::Deserialize, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PreemptMode {
    /// The backup takes over. The default, as in the RFC.
    #[default]
    Always,
    /// The backup takes over after it has received the master's advertisements for this long, which
    /// is time to warm up after a start.
    After(Duration),
    /// The master keeps the addresses: each move costs connections.
    Never,
}

/// The settings of one router's election, which [`Election::new`](super::Election::new) validates.
#[derive(Clone, Debug)]
#[must_use]
pub struct ElectionConfig {
    pub(super) vrid: u8,
    pub(super) source: IpAddr,
    pub(super) version: VrrpVersion,
    pub(super) priority: u8,
    pub(super) interval: Duration,
    pub(super) preempt: PreemptMode,
    pub(super) start_delay: Duration,
    pub(super) announce_repeats: u32,
    pub(super) announce_interval: Duration,
}

impl ElectionConfig {
    /// Creates settings for the virtual router of this number, from 1 to 255, with the address of
    /// this machine that advertisements are sent from. Of two routers with the same priority the one
    /// with the higher source address is master.
    pub fn new(vrid: u8, source: IpAddr) -> Self {
        Self {
            vrid,
            source,
            version: VrrpVersion::V3,
            priority: 100,
            interval: Duration::from_secs(1),
            preempt: PreemptMode::Always,
            start_delay: Duration::ZERO,
            announce_repeats: 5,
            announce_interval: Duration::from_secs(1),
        }
    }

    /// Sets the version of the advertisements that are sent. Default: 3.
    pub fn version(self, version: VrrpVersion) -> Self {
        Self { version, ..self }
    }

    /// Sets the priority, from 1 to 254, of which the highest is master; or 255 for the owner, whose
    /// own addresses the virtual addresses are. Default: 100.
    pub fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// Sets how often the master advertises. Version 3: 10 ms to 40.95 s, in steps of 10 ms; version
    /// 2: 1 to 255 s, in whole seconds, and all routers must use the same. Default: 1 s.
    ///
    /// A backup takes over after three to four intervals; a master that stalls for three intervals
    /// loses the addresses.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Sets whether a backup replaces a master of lower priority. Default: it does.
    pub fn preempt(self, preempt: PreemptMode) -> Self {
        Self { preempt, ..self }
    }

    /// Sets how long the election is delayed after its start, while links and switches come up.
    /// Default: no delay.
    pub fn start_delay(self, start_delay: Duration) -> Self {
        Self { start_delay, ..self }
    }

    /// Sets how often a new master repeats the announcement of its addresses. Default: 5 times.
    pub fn announce_repeats(self, announce_repeats: u32) -> Self {
        Self { announce_repeats, ..self }
    }

    /// Sets the time between the announcements of a new master. Default: 1 s.
    pub fn announce_interval(self, announce_interval: Duration) -> Self {
        Self { announce_interval, ..self }
    }

    /// Checks the number, the priority, the interval and the version.
    pub(crate) fn validate(&self) -> Result<(), VrrpConfigError> {
        validate_vrid(self.vrid)?;
        validate_priority(self.priority)?;
        if self.version == VrrpVersion::V2 && self.source.is_ipv6() {
            return Err(VrrpConfigError::Ipv6InVersion2(self.source));
        }
        self.version.encode_interval(self.interval).map(drop)
    }
}

pub(super) const fn validate_vrid(vrid: u8) -> Result<(), VrrpConfigError> {
    if vrid == 0 { Err(VrrpConfigError::Vrid(vrid)) } else { Ok(()) }
}

pub(super) const fn validate_priority(priority: u8) -> Result<(), VrrpConfigError> {
    if priority == 0 { Err(VrrpConfigError::Priority(priority)) } else { Ok(()) }
}

/// An error that says which setting of a virtual router is refused, or why a message cannot be
/// encoded.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum VrrpConfigError {
    /// The number of the virtual router is 0.
    #[error("virtual router number {0} is not between 1 and 255")]
    Vrid(u8),
    /// The priority is 0, which only the last advertisement of a master has.
    #[error("VRRP priority {0} is out of range: 1 to 254, or 255 for the owner of the addresses")]
    Priority(u8),
    /// The version's messages cannot hold the interval.
    #[error(
        "advertisement interval {interval:?} is not valid in {version}: \
         it takes {min:?} to {max:?} in steps of {min:?}"
    )]
    Interval {
        /// The interval that was set.
        interval: Duration,
        /// The version of the protocol.
        version: VrrpVersion,
        /// The shortest interval, and the step.
        min: Duration,
        /// The longest interval.
        max: Duration,
    },
    /// The source address is an IPv6 address, and version 2 supports only IPv4.
    #[error("VRRP version 2 does not support IPv6, and the source address is {0}")]
    Ipv6InVersion2(IpAddr),
    /// The virtual router has no virtual address.
    #[error("there is no virtual address")]
    NoAddresses,
    /// The virtual router has more virtual addresses than a message can hold.
    #[error("there are {0} virtual addresses, and a message holds at most 255")]
    TooManyAddresses(usize),
    /// A virtual address is of another family than the source address.
    #[error(
        "virtual address {address} and source address {source_address} are of different families"
    )]
    AddressFamily {
        /// The virtual address.
        address: IpAddr,
        /// The address that advertisements are sent from.
        source_address: IpAddr,
    },
}
