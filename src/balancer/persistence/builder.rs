//! The settings of persistence.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::backend::BackendState;
use crate::setting::{SettingError, check_range};

/// A builder for [`Persistence`](super::Persistence), made by [`Persistence::builder`](super::Persistence::builder).
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct PersistenceBuilder {
    pub(super) timeout: Duration,
    ipv4_prefix: u8,
    ipv6_prefix: u8,
    pub(super) capacity: usize,
    draining: AffinityPolicy,
    quiesced: AffinityPolicy,
}

/// What happens to the clients of a backend that gets no new ones.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AffinityPolicy {
    /// Persistence ends at once: the next connection of a client is scheduled elsewhere. The backend is
    /// empty as soon as its connections have ended.
    End,
    /// Templates expire: clients return until then, and no longer renew their templates. The last
    /// client has left one timeout after the change.
    Expire,
    /// Persistence goes on: clients return and renew their templates. A client that never pauses never
    /// leaves.
    Keep,
}

/// An instant plus a longer timeout would overflow and panic.
pub(super) const MAX_PERSISTENCE_TIMEOUT: Duration = Duration::from_secs(1 << 32);
const DEFAULT_TEMPLATE_CAPACITY: usize = 1 << 20;

impl PersistenceBuilder {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            ipv4_prefix: 32,
            ipv6_prefix: 128,
            capacity: DEFAULT_TEMPLATE_CAPACITY,
            draining: AffinityPolicy::End,
            quiesced: AffinityPolicy::Keep,
        }
    }

    /// Sets how many leading bits of an IPv4 client count, from 0 to 32. Default: 32.
    pub fn ipv4_prefix(self, bits: u8) -> Self {
        Self { ipv4_prefix: bits, ..self }
    }

    /// Sets how many leading bits of an IPv6 client count, from 0 to 128. Default: 128.
    pub fn ipv6_prefix(self, bits: u8) -> Self {
        Self { ipv6_prefix: bits, ..self }
    }

    /// Sets the most templates; beyond it each connection of a new client is scheduled. Default:
    /// 1 048 576.
    pub fn capacity(self, templates: usize) -> Self {
        Self { capacity: templates, ..self }
    }

    /// Sets what a drain does to the backend's clients. Default: [`AffinityPolicy::End`].
    pub fn draining(self, affinity: AffinityPolicy) -> Self {
        Self { draining: affinity, ..self }
    }

    /// Sets what weight 0 does to the backend's clients. Default: [`AffinityPolicy::Keep`], as in the
    /// kernel; [`AffinityPolicy::End`] is its `expire_quiescent_template`.
    pub fn quiesced(self, affinity: AffinityPolicy) -> Self {
        Self { quiesced: affinity, ..self }
    }

    /// Returns the policy for the clients of a backend in this state.
    pub(super) const fn affinity_policy(&self, state: BackendState) -> AffinityPolicy {
        match state {
            BackendState::Eligible => AffinityPolicy::Keep,
            BackendState::Quiesced => self.quiesced,
            BackendState::Draining => self.draining,
            BackendState::Down
            | BackendState::Ejected
            | BackendState::Withheld
            | BackendState::Disabled => AffinityPolicy::End,
        }
    }

    /// Checks the settings, as [`build`](Self::build) does.
    pub(crate) fn validate(&self) -> Result<(), SettingError> {
        check_range("timeout", self.timeout, ..=MAX_PERSISTENCE_TIMEOUT)?;
        check_range("ipv4_prefix", self.ipv4_prefix, 0..=32)?;
        check_range("ipv6_prefix", self.ipv6_prefix, 0..=128)?;
        Ok(())
    }

    pub(super) fn client_network(&self, client: IpAddr) -> IpAddr {
        mask_to_prefix(client, self.ipv4_prefix, self.ipv6_prefix)
    }
}

/// Returns the network of an address, by the prefix length of its family.
pub(crate) fn mask_to_prefix(address: IpAddr, ipv4_prefix: u8, ipv6_prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(ipv4_prefix.into())).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask =
                u128::MAX.checked_shl(128u32.saturating_sub(ipv6_prefix.into())).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_cuts_the_client_down_to_its_network() {
        let builder = PersistenceBuilder::new(Duration::from_secs(1));
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(builder.ipv4_prefix(24).client_network(ip("10.1.2.3")), ip("10.1.2.0"));
        assert_eq!(builder.ipv4_prefix(0).client_network(ip("10.1.2.3")), ip("0.0.0.0"));
        assert_eq!(builder.ipv4_prefix(32).client_network(ip("10.1.2.3")), ip("10.1.2.3"));
        assert_eq!(builder.ipv6_prefix(64).client_network(ip("1:2:3:4:5:6:7:8")), ip("1:2:3:4::"));
        assert_eq!(builder.ipv6_prefix(0).client_network(ip("1::1")), ip("::"));
    }
}
