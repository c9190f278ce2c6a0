//! What a router is told ahead.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::VrrpConfigError;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum VrrpVersion {
    /// RFC 3768: IPv4, intervals in seconds.
    V2,
    /// RFC 9568: IPv4 and IPv6, intervals in hundredths of a second.
    #[default]
    V3,
}

impl VrrpVersion {
    /// The shortest interval, which is the step, and the longest.
    pub(super) const fn interval_range(self) -> (Duration, Duration) {
        match self {
            Self::V2 => (Duration::from_secs(1), Duration::from_secs(255)),
            Self::V3 => (Duration::from_millis(10), Duration::from_millis(40_950)),
        }
    }

    /// An interval in the units of its field, if it fits.
    pub(super) fn encode_interval(self, interval: Duration) -> Result<u16, VrrpConfigError> {
        let (least, most) = self.interval_range();
        let fits = interval >= least && interval <= most;
        if !fits || !interval.as_nanos().is_multiple_of(least.as_nanos()) {
            return Err(VrrpConfigError::Interval { interval, version: self, least, most });
        }
        Ok((interval.as_nanos() / least.as_nanos()) as u16)
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

/// What a backup does about a master of lower priority.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PreemptMode {
    /// It takes over. The default, as in the RFC.
    #[default]
    Always,
    /// It takes over once it has heard it for so long: time to warm up after a start.
    After(Duration),
    /// It leaves it where it is: each move costs connections.
    Never,
}

/// What a router is told ahead; checked by [`Router::new`](super::Router::new).
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
    /// A router for the virtual router of this number, from 1 to 255, that sends from this address
    /// of its own. Of two with the same priority the one with the higher address is master.
    pub fn new(id: u8, address: IpAddr) -> Self {
        Self {
            vrid: id,
            source: address,
            version: VrrpVersion::V3,
            priority: 100,
            interval: Duration::from_secs(1),
            preempt: PreemptMode::Always,
            start_delay: Duration::ZERO,
            announce_repeats: 5,
            announce_interval: Duration::from_secs(1),
        }
    }

    /// The version that it sends. Default: 3.
    pub fn version(self, version: VrrpVersion) -> Self {
        Self { version, ..self }
    }

    /// From 1 to 254, the highest is master; 255 for the router whose own addresses the virtual ones
    /// are. Default: 100.
    pub fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// How often it advertises itself as master. Version 3: 10 ms to 40.95 s, in steps of 10 ms;
    /// version 2: 1 to 255 s, in seconds, and all routers must have the same. Default: 1 s.
    ///
    /// A backup takes over after three of them and up to one more; a third of that is how long a
    /// master may be held up without losing the addresses.
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// What it does as backup about a master of lower priority. Default: it takes over.
    pub fn preempt(self, preempt: PreemptMode) -> Self {
        Self { preempt, ..self }
    }

    /// How long it takes no part after its start, while links and switches come up. Default: not at
    /// all.
    pub fn start_delay(self, start_delay: Duration) -> Self {
        Self { start_delay, ..self }
    }

    /// How often a new master announces its addresses again, after the first time, and how far
    /// apart. Default: 5 times, a second apart.
    pub fn announce_repeats(self, again: u32, every: Duration) -> Self {
        Self { announce_repeats: again, announce_interval: every, ..self }
    }

    /// Does it make sense?
    pub(crate) fn validate(&self) -> Result<(), VrrpConfigError> {
        if self.vrid == 0 {
            return Err(VrrpConfigError::Vrid(self.vrid));
        }
        if self.priority == 0 {
            return Err(VrrpConfigError::Priority(self.priority));
        }
        if self.version == VrrpVersion::V2 && self.source.is_ipv6() {
            return Err(VrrpConfigError::Ipv6InVersion2(self.source));
        }
        self.version.encode_interval(self.interval).map(drop)
    }
}
