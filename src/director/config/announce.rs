//! The `[announce]` table.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::error::{ConfigProblem, ConfigProblems, KeyPathSegment};
use super::listen::ListenAddress;
use super::service::ServiceConfig;
use super::table::config_table;
use super::value::{HumanDuration, apply_duration_if_some, apply_if_some};
use super::vrrp::VrrpConfig;
use crate::announce::{AnnounceStartError, AnnouncerConfig, MAX_ANNOUNCE_DELAY, WithoutQuorum};

config_table! {
/// A builder of an [`AnnounceConfig`].
builder AnnounceConfigBuilder;

/// Addresses that a routing daemon of this machine announces, such as BIRD or FRR: several directors may have the same
/// ones, and all serve (anycast). There is no election.
///
/// While all services that listen on an address have their quorum, and those that they lead to by server names, the kernel has a route to it with the protocol number
/// `route_protocol` and the metric `metric`, by the interface `lvs-announce`, which the routing daemon redistributes;
/// `docs/scale.md` has configurations of both. The route is gone with the process. `[announce]` needs `CAP_NET_ADMIN` and
/// `/dev/net/tun`; no interface may have the addresses. A reload that changes the table keeps the routes of addresses
/// that stay.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AnnounceConfig {
    /// The addresses, of either family, without a port: `["203.0.113.10", "2001:db8::10"]`. A service must listen on each;
    /// one that listens on all addresses counts for all, one of a firewall mark for none. None may be an address of `[vrrp]`.
    addresses: Vec<IpAddr>,
    /// The metric of the route while the services have their quorum, from 1. Default: `100`.
    metric: Option<u32>,
    /// The metric while this director is drained (`lvs ctl announce drain`), which is higher than `metric`. Default: `200`.
    drain_metric: Option<u32>,
    /// The metric while a service does not have its quorum, which is higher than `drain_metric`. Default: `300`.
    last_resort_metric: Option<u32>,
    /// What becomes of an address of which a service does not have its quorum: `"last-resort"` announces it with
    /// `last_resort_metric`, so that it stays reachable when no director has a quorum; `"withdraw"` removes the route, for
    /// routers that do not compare metrics. Default: `"last-resort"`.
    without_quorum: Option<WithoutQuorumConfig>,
    /// The protocol number of the routes, by which the routing daemon recognizes them: from 5 to 255. Default: `108`.
    route_protocol: Option<u8>,
    /// How long services must have their quorum again before their address is preferred again. Each loss within
    /// `max_recovery_delay` of that doubles the time. The first announcement after a start has no delay. Default: `"1s"`.
    recovery_delay: Option<HumanDuration>,
    /// The longest such time. Default: `"1m"`.
    max_recovery_delay: Option<HumanDuration>,
    /// How long the director serves on, when it is stopped, after it has withdrawn its addresses, before it accepts no more
    /// connections: as long as routers take to use other directors. Default: `"5s"`.
    withdraw_delay: Option<HumanDuration>,
}
}

/// What becomes of an address without quorum.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WithoutQuorumConfig {
    /// It is announced as a last resort.
    LastResort,
    /// It is withdrawn.
    Withdraw,
}

const DEFAULT_WITHDRAW_DELAY: Duration = Duration::from_secs(5);

impl AnnounceConfig {
    /// Returns a builder of these addresses.
    pub fn builder(addresses: impl IntoIterator<Item = IpAddr>) -> AnnounceConfigBuilder {
        AnnounceConfigBuilder {
            table: Self {
                addresses: addresses.into_iter().collect(),
                metric: None,
                drain_metric: None,
                last_resort_metric: None,
                without_quorum: None,
                route_protocol: None,
                recovery_delay: None,
                max_recovery_delay: None,
                withdraw_delay: None,
            },
        }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let mut seen = BTreeSet::new();
        if let Some(n) = self.addresses.iter().position(|address| !seen.insert(address)) {
            let path = [KeyPathSegment::Key("addresses"), KeyPathSegment::Index(n)];
            let reason = format!("the address {} is there twice", self.addresses[n]);
            return Err(ConfigProblem::new(path, reason));
        }
        match self.announcer(Duration::ZERO).validate() {
            Err(AnnounceStartError::Setting { setting, reason }) => {
                Err(ConfigProblem::at_key(setting, reason))
            }
            Err(error) => Err(ConfigProblem::at_key("addresses", error.to_string())),
            Ok(()) => Ok(()),
        }
    }

    /// Checks that the services and virtual routers of all files fit.
    pub(super) fn check_together(
        &self,
        services: &[ServiceConfig],
        routers: &[VrrpConfig],
    ) -> ConfigProblems {
        let mut problems = ConfigProblems::default();
        for (n, address) in self.addresses.iter().enumerate() {
            let of_router = routers.iter().find(|router| {
                router.virtual_addresses().any(|virtual_address| virtual_address == *address)
            });
            let reason = if let Some(router) = of_router {
                format!(
                    "virtual router {:?} has the address {address}, which only one director has at a time: remove it \
                     from [vrrp] or from [announce]",
                    router.router_name()
                )
            } else if !services.iter().any(|service| service.listens_on(*address)) {
                format!(
                    "no service listens on {address}, so that nothing decides whether to announce it: a firewall mark is \
                     no address"
                )
            } else {
                continue;
            };
            let path = [KeyPathSegment::Key("addresses"), KeyPathSegment::Index(n)];
            problems.record(Err(ConfigProblem::new(path, reason)));
        }
        problems
    }

    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    pub(crate) fn withdraw_delay(&self) -> Duration {
        self.withdraw_delay.map_or(DEFAULT_WITHDRAW_DELAY, |HumanDuration(delay)| delay)
    }

    /// Returns the configuration of the announcer; addresses that another configuration removes are served on for
    /// `drain_timeout`, and for a day at most.
    pub(crate) fn announcer(&self, drain_timeout: Duration) -> AnnouncerConfig {
        let config = AnnouncerConfig::new().removal_delay(drain_timeout.min(MAX_ANNOUNCE_DELAY));
        let config = self.addresses.iter().copied().fold(config, AnnouncerConfig::address);
        let config = apply_if_some(config, self.metric, AnnouncerConfig::metric);
        let config = apply_if_some(config, self.drain_metric, AnnouncerConfig::drain_metric);
        let config =
            apply_if_some(config, self.last_resort_metric, AnnouncerConfig::last_resort_metric);
        let config = apply_if_some(config, self.route_protocol, AnnouncerConfig::route_protocol);
        let config =
            apply_duration_if_some(config, self.recovery_delay, AnnouncerConfig::recovery_delay);
        let config = apply_duration_if_some(
            config,
            self.max_recovery_delay,
            AnnouncerConfig::max_recovery_delay,
        );
        apply_if_some(config, self.without_quorum, |config, action| {
            config.without_quorum(match action {
                WithoutQuorumConfig::LastResort => WithoutQuorum::LastResort,
                WithoutQuorumConfig::Withdraw => WithoutQuorum::Withdraw,
            })
        })
    }
}

impl ServiceConfig {
    /// Returns whether the service listens on an address, or on all of its family.
    pub(crate) fn listens_on(&self, ip: IpAddr) -> bool {
        self.listen.0.iter().any(|listen| match listen {
            ListenAddress::Address(address) => {
                let own = address.ip();
                // `[::]` receives IPv4 too.
                own == ip || own.is_unspecified() && (own.is_ipv6() || ip.is_ipv4())
            }
            ListenAddress::Unix(_) | ListenAddress::Mark(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::DirectorConfig;
    use super::*;

    const SERVICE: &str = "[[service]]\nname = \"web\"\nlisten = \"203.0.113.10:80\"\n\
                           [[service.server]]\naddress = \"10.0.0.1:80\"\n";

    #[test]
    fn what_does_not_fit_is_refused_by_its_key() {
        let vrrp = "[vrrp]\ninterface = \"eth0\"\nvirtual_router_id = 1\naddresses = [\"203.0.113.10/32\"]\n";
        for (table, more, key, reason) in [
            ("addresses = []", "", "announce.addresses", "at least one address"),
            (
                "addresses = [\"127.0.0.1\"]",
                "",
                "announce.addresses",
                "127.0.0.1 is a loopback address",
            ),
            (
                "addresses = [\"203.0.113.10\", \"203.0.113.10\"]",
                "",
                "announce.addresses.2",
                "there twice",
            ),
            ("addresses = [\"203.0.113.11\"]", "", "announce.addresses.1", "no service listens on"),
            ("addresses = [\"203.0.113.10\"]", vrrp, "announce.addresses.1", "only one director"),
            (
                "addresses = [\"203.0.113.10\"]\ndrain_metric = 100",
                "",
                "announce.drain_metric",
                "higher than `metric`, 100",
            ),
            (
                "addresses = [\"203.0.113.10\"]\nrecovery_delay = \"2m\"",
                "",
                "announce.max_recovery_delay",
                "shorter than `recovery_delay`",
            ),
            (
                "addresses = [\"203.0.113.10\"]\nroute_protocol = 4",
                "",
                "announce.route_protocol",
                "5 to 255",
            ),
        ] {
            let text = format!("[announce]\n{table}\n{more}{SERVICE}");
            let error = DirectorConfig::parse(&text).expect_err(key).to_string();
            assert!(error.contains(key) && error.contains(reason), "{key}: {error}");
        }
    }

    #[test]
    fn an_address_is_decided_by_services_that_listen_on_it_or_on_all() {
        for (listen, address) in [
            ("203.0.113.10:80", "203.0.113.10"),
            ("0.0.0.0:80", "203.0.113.10"),
            ("[::]:80", "203.0.113.10"),
            ("[::]:80", "2001:db8::10"),
        ] {
            let service = SERVICE.replace("203.0.113.10:80", listen);
            let text = format!("[announce]\naddresses = [\"{address}\"]\n{service}");
            let config = DirectorConfig::parse(&text).expect(listen);
            assert_eq!(
                config.announce.expect("a table").announcer(Duration::ZERO),
                AnnouncerConfig::new()
                    .removal_delay(Duration::ZERO)
                    .address(address.parse().expect(address))
            );
        }
    }
}
