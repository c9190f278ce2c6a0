//! What is announced, and with which metrics.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::AnnounceStartError;

/// The longest delay after a recovery or a removal.
pub(crate) const MAX_ANNOUNCE_DELAY: Duration = Duration::from_secs(86_400);
/// The metric of IPv6 routes that have none.
const MIN_METRIC: u32 = 1;

/// The addresses that an [`Announcer`](super::Announcer) announces, and how;
/// [`Announcer::start`](super::Announcer::start) validates it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct AnnouncerConfig {
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) route_protocol: u8,
    pub(super) metric: u32,
    pub(super) drain_metric: u32,
    pub(super) last_resort_metric: u32,
    pub(super) without_quorum: WithoutQuorum,
    pub(super) recovery_delay: Duration,
    pub(super) max_recovery_delay: Duration,
    pub(super) removal_delay: Duration,
}

/// What becomes of an address whose services cannot serve.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum WithoutQuorum {
    /// It is announced with [`AnnouncerConfig::last_resort_metric`], so that it stays reachable when no director
    /// can serve.
    #[default]
    LastResort,
    /// It is withdrawn: when no director can serve, clients have no route to it.
    Withdraw,
}

impl Default for AnnouncerConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl AnnouncerConfig {
    /// Creates a configuration without addresses; at least one must be added.
    pub fn new() -> Self {
        Self {
            addresses: BTreeSet::new(),
            route_protocol: 108,
            metric: 100,
            drain_metric: 200,
            last_resort_metric: 300,
            without_quorum: WithoutQuorum::default(),
            recovery_delay: Duration::from_secs(1),
            max_recovery_delay: Duration::from_secs(60),
            removal_delay: Duration::from_secs(10),
        }
    }

    /// Adds an address, of either family. No interface may have it.
    pub fn address(mut self, address: IpAddr) -> Self {
        self.addresses.insert(address);
        self
    }

    /// Sets the protocol number of the routes, by which a routing daemon recognizes them (`krt_source` of BIRD), and
    /// `ip route show proto 108`: from 5 to 255, those below are the kernel's. No other program may use it.
    /// Default: 108, which `/etc/iproute2/rt_protos` gives to nobody.
    pub fn route_protocol(self, number: u8) -> Self {
        Self { route_protocol: number, ..self }
    }

    /// Sets the metric of an address that is announced. The lower, the more it is preferred. Default: 100.
    pub fn metric(self, metric: u32) -> Self {
        Self { metric, ..self }
    }

    /// Sets the metric of an address that is drained, which is higher than [`metric`](Self::metric). Default: 200.
    pub fn drain_metric(self, metric: u32) -> Self {
        Self { drain_metric: metric, ..self }
    }

    /// Sets the metric of an address whose services cannot serve, which is higher than
    /// [`drain_metric`](Self::drain_metric). Default: 300.
    pub fn last_resort_metric(self, metric: u32) -> Self {
        Self { last_resort_metric: metric, ..self }
    }

    /// Sets what becomes of an address whose services cannot serve. Default: [`WithoutQuorum::LastResort`].
    pub fn without_quorum(self, action: WithoutQuorum) -> Self {
        Self { without_quorum: action, ..self }
    }

    /// Sets how long the services must have their quorum again before their address is preferred again. The first
    /// announcement after a start has no delay. Default: 1 s; 0 switches the delay off, the growing one too.
    pub fn recovery_delay(self, delay: Duration) -> Self {
        Self { recovery_delay: delay, ..self }
    }

    /// Sets the maximum of the delay, which doubles with each loss that follows a recovery within this time.
    /// Default: 60 s.
    pub fn max_recovery_delay(self, delay: Duration) -> Self {
        Self { max_recovery_delay: delay, ..self }
    }

    /// Sets how long the kernel accepts packets to an address that [`Announcer::reconfigure`] removes, so that open
    /// connections may end: at most a day. Default: 10 s.
    ///
    /// [`Announcer::reconfigure`]: super::Announcer::reconfigure
    pub fn removal_delay(self, delay: Duration) -> Self {
        Self { removal_delay: delay, ..self }
    }

    /// Returns the addresses.
    #[cfg(feature = "director")]
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }

    /// Checks the configuration without system calls; the error names the setting that is not valid.
    pub(crate) fn validate(&self) -> Result<(), AnnounceStartError> {
        let refuse = |setting, reason: String| Err(AnnounceStartError::Setting { setting, reason });
        if self.addresses.is_empty() {
            return refuse("addresses", "at least one address is required".to_owned());
        }
        for address in &self.addresses {
            let is_mapped =
                matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
            let kind = match address {
                _ if address.is_unspecified() => "the unspecified address",
                _ if address.is_loopback() => "a loopback address",
                _ if address.is_multicast() => "a multicast address",
                IpAddr::V4(address) if address.is_broadcast() => "the broadcast address",
                IpAddr::V4(address) if address.is_link_local() => "a link-local address",
                IpAddr::V6(address) if address.is_unicast_link_local() => "a link-local address",
                _ if is_mapped => "an IPv4-mapped address",
                _ => continue,
            };
            return refuse("addresses", format!("{address} is {kind}, which no router announces"));
        }
        if self.route_protocol < 5 {
            let reason = format!(
                "the protocol number is {}, and must be 5 to 255: those below are the kernel's",
                self.route_protocol
            );
            return refuse("route_protocol", reason);
        }
        if self.metric < MIN_METRIC {
            return refuse("metric", "the metric is 0, and must be 1 or more".to_owned());
        }
        for (setting, metric, lower_setting, lower) in [
            ("drain_metric", self.drain_metric, "metric", self.metric),
            ("last_resort_metric", self.last_resort_metric, "drain_metric", self.drain_metric),
        ] {
            if metric <= lower {
                let reason = format!("{metric} must be higher than `{lower_setting}`, {lower}");
                return refuse(setting, reason);
            }
        }
        for (setting, delay) in [
            ("recovery_delay", self.recovery_delay),
            ("max_recovery_delay", self.max_recovery_delay),
            ("removal_delay", self.removal_delay),
        ] {
            if delay > MAX_ANNOUNCE_DELAY {
                return refuse(setting, format!("{delay:?} is longer than a day"));
            }
        }
        if self.max_recovery_delay < self.recovery_delay {
            let reason = format!(
                "{:?} is shorter than `recovery_delay`, {:?}",
                self.max_recovery_delay, self.recovery_delay
            );
            return refuse("max_recovery_delay", reason);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_not_valid_is_named() {
        let valid = || AnnouncerConfig::new().address([203, 0, 113, 10].into());
        assert!(valid().validate().is_ok());
        let address = |text: &str| AnnouncerConfig::new().address(text.parse().expect(text));
        for (config, setting) in [
            (AnnouncerConfig::new(), "addresses"),
            (address("0.0.0.0"), "addresses"),
            (address("127.0.0.2"), "addresses"),
            (address("224.0.0.1"), "addresses"),
            (address("255.255.255.255"), "addresses"),
            (address("169.254.1.1"), "addresses"),
            (address("::"), "addresses"),
            (address("::1"), "addresses"),
            (address("fe80::1"), "addresses"),
            (address("ff02::1"), "addresses"),
            (address("::ffff:203.0.113.10"), "addresses"),
            (valid().route_protocol(4), "route_protocol"),
            (valid().metric(0), "metric"),
            (valid().metric(200), "drain_metric"),
            (valid().drain_metric(300), "last_resort_metric"),
            (valid().recovery_delay(Duration::from_secs(61)), "max_recovery_delay"),
            (valid().max_recovery_delay(Duration::from_secs(86_401)), "max_recovery_delay"),
            (valid().removal_delay(Duration::MAX), "removal_delay"),
        ] {
            let error = config.validate().expect_err(setting);
            let AnnounceStartError::Setting { setting: named, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*named, setting, "{error}");
        }
    }
}
