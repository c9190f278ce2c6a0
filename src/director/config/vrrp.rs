//! The `[vrrp]` tables.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

use super::address_announce::AddressAnnounceConfig;
use super::error::{ConfigProblem, KeyPathSegment};
use super::notify::NotifyCommandList;
use super::table::{Tables, config_table};
use super::track::TrackConfig;
use super::value::{FromText, HexSecret, HumanDuration, apply_duration_if_some, apply_if_some};
use super::virtual_route::VirtualRouteConfig;
use crate::vrrp::{
    AuthKey, AuthKeyLengthError, ChecksumCoverage, ElectionConfig, NotifyCommands, PreemptMode,
    VirtualAddress, VirtualRouterConfig, Vrrp, VrrpConfigError as VrrpError, VrrpStartError,
    VrrpState, VrrpVersion,
};

config_table! {
/// A builder of a [`VrrpConfig`].
builder VrrpConfigBuilder;

/// A virtual router (VRRP, RFC 9568): virtual addresses that the master of an active/standby pair
/// has.
///
/// With several `[[vrrp]]` tables, one director is master of all of them or of none. Addresses of
/// both families make a virtual router for each. A reload changes a running virtual router: a master
/// stays master, and keeps the addresses that the new configuration has too. Only another number of
/// virtual routers, another interface, number, family, version, source address, peer or virtual MAC, or
/// the priority 255 restarts the election.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct VrrpConfig {
    /// The name of the virtual router in logs, metrics and the API. With addresses of both families, the
    /// name of the IPv6 router ends with `/v6`. Default: `virtual_router_id@interface`, such as
    /// `51@eth0`, and `51@eth0/v6` for a router of IPv6 alone.
    pub(super) name: Option<String>,
    /// The network interface of the advertisements and of the virtual addresses.
    pub(crate) interface: String,
    /// The number of the virtual router on its network, from 1 to 255; the same on both directors. An
    /// IPv4 and an IPv6 router may have the same number.
    pub(crate) virtual_router_id: u8,
    /// The priority, from 1 to 254: the director with the highest is master. 255 is for a director
    /// that owns the addresses. Default: `100`.
    priority: Option<u8>,
    /// The time between two advertisements of the master: from 10 ms to 40.95 s in steps of 10 ms;
    /// whole seconds to 255 s for version 2. A backup takes over after three to four intervals.
    /// Default: `"1s"`.
    advert_interval: Option<HumanDuration>,
    /// Whether a director takes over from a master of lower priority. After its start, and each time that it has
    /// been active, it waits until each check has had a first result and, with `[sync]`, until it has the state of
    /// the active director, for 30 s at most. Default: `true`.
    #[serde(default = "default_true")]
    preempt: bool,
    /// How long a director waits before it takes over from a master of lower priority. Default:
    /// `"0s"`.
    preempt_delay: Option<HumanDuration>,
    /// How long the director takes no part in the election after its start. Default: `"0s"`.
    start_delay: Option<HumanDuration>,
    /// The virtual addresses, each with its prefix length, such as `"10.88.0.100/24"`; at least one.
    /// The first IPv6 address should be link-local.
    addresses: Vec<FromText<VirtualAddress>>,
    /// Further addresses that the master has, and that advertisements do not name, as in keepalived's
    /// `virtual_ipaddress_excluded`; of either family. Default: none.
    #[serde(default)]
    excluded_addresses: Vec<FromText<VirtualAddress>>,
    /// Routes that the master adds. Default: none.
    #[serde(default)]
    routes: Vec<VirtualRouteConfig>,
    /// The source address of IPv4 advertisements. Default: the first address of the interface.
    source: Option<IpAddr>,
    /// The source address of IPv6 advertisements. Default: the first address of the interface.
    source_v6: Option<IpAddr>,
    /// The other directors: advertisements are sent to them by unicast, and accepted from no other
    /// address. Default: none, advertisements are sent by multicast.
    #[serde(default)]
    peers: Vec<IpAddr>,
    /// The version of VRRP, 2 or 3. Default: `3`.
    version: Option<u8>,
    /// Version 3 over IPv4: computes the checksum without a pseudo-header, as some routers do.
    /// Default: `false`.
    #[serde(default)]
    checksum_as_v2: bool,
    /// Gives the virtual addresses the MAC address 00-00-5E-00-01-ID (IPv6: 00-00-5E-00-02-ID) on a
    /// macvlan interface. Default: `false`.
    #[serde(default)]
    virtual_mac: bool,
    /// Accepts version 2 advertisements with a plain text password, whatever it is. Default: `false`.
    #[serde(default)]
    ignore_passwords: bool,
    /// Whether a director that gives the addresses away resets their TCP connections, so that clients
    /// connect to the other one at once. Needs `CONFIG_INET_DIAG_DESTROY` of the kernel. Default:
    /// `true`.
    #[serde(default = "default_true")]
    reset_connections: bool,
    /// Signs advertisements with this key, and refuses unsigned ones: 32 to 64 bytes in hexadecimal
    /// digits, as printed by `openssl rand -hex 32`. Default: none.
    auth_key: Option<HexSecret>,
    /// How a new master announces its addresses (gratuitous ARP, unsolicited neighbour
    /// advertisements). Default: `{ repeats = 5, interval = "1s" }`.
    announce: Option<AddressAnnounceConfig>,
    /// How much the priority is reduced for each service that has no eligible server, from 0 to 255.
    /// Of several `[[vrrp]]` tables, the first value counts for all. Default: none.
    pub(crate) service_weight: Option<u8>,
    /// The tracked items, on which the priority depends. Default: none.
    #[setter(track)]
    #[serde(default, rename = "track")]
    pub(crate) tracks: Tables<TrackConfig>,
    /// Runs at each change of the state of this virtual router, the first one included, after the
    /// program of the state. The program gets the further arguments of keepalived: `INSTANCE`, the
    /// name, the state in capitals, the priority. Of a table with addresses of both families, the
    /// IPv4 router counts. Default: none.
    notify: Option<NotifyCommandList>,
    /// Runs when the state becomes master. Default: none.
    notify_master: Option<NotifyCommandList>,
    /// Runs when the state becomes backup, after the start too. Default: none.
    notify_backup: Option<NotifyCommandList>,
    /// Runs when the state becomes fault. Default: none.
    notify_fault: Option<NotifyCommandList>,
    /// Runs when the virtual router is stopped. Default: none.
    notify_stop: Option<NotifyCommandList>,
    /// The maximum time of a notify program; then it is killed. Default: `"30s"`.
    notify_timeout: Option<HumanDuration>,
}
}

const fn default_true() -> bool {
    true
}

/// What the name of an IPv6 router ends with that has no name of its own.
const V6_SUFFIX: &str = "/v6";

impl VrrpConfig {
    /// Returns a builder of a virtual router without addresses; at least one must be set.
    pub fn builder(interface: impl Into<String>, virtual_router_id: u8) -> VrrpConfigBuilder {
        let table = Self {
            name: None,
            interface: interface.into(),
            virtual_router_id,
            priority: None,
            advert_interval: None,
            preempt: default_true(),
            preempt_delay: None,
            start_delay: None,
            addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            routes: Vec::new(),
            source: None,
            source_v6: None,
            peers: Vec::new(),
            version: None,
            checksum_as_v2: false,
            virtual_mac: false,
            ignore_passwords: false,
            reset_connections: default_true(),
            auth_key: None,
            announce: None,
            service_weight: None,
            tracks: Vec::new(),
            notify: None,
            notify_master: None,
            notify_backup: None,
            notify_fault: None,
            notify_stop: None,
            notify_timeout: None,
        };
        VrrpConfigBuilder { table }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let problem =
            |key, reason: &dyn ToString| Err(ConfigProblem::at_key(key, reason.to_string()));
        if self.addresses.is_empty() {
            return problem("addresses", &"at least one address is required");
        }
        if let Some(version) = self.version
            && !matches!(version, 2 | 3)
        {
            return problem("version", &format!("the version is {version}, and must be 2 or 3"));
        }
        if !self.preempt && self.preempt_delay.is_some() {
            return problem("preempt_delay", &"`preempt_delay` requires `preempt = true`");
        }
        for (key, _, commands) in self.notify_commands() {
            commands.validate(key)?;
        }
        if let Some(Err(error)) = self.parse_auth_key() {
            return problem("auth_key", &error);
        }
        self.validate_tracks()?;
        for (key, source, is_v6) in
            [("source", self.source, false), ("source_v6", self.source_v6, true)]
        {
            if let Some(source) = source
                && source.is_ipv6() != is_v6
            {
                let family = if is_v6 { "IPv6" } else { "IPv4" };
                return problem(key, &format!("{source} is not an {family} address"));
            }
        }
        self.validate_families()?;
        // The source address is known when the director starts; here, only its family counts.
        let source_of = |is_v6| {
            Ok::<_, VrrpStartError>(match is_v6 {
                true => IpAddr::V6(Ipv6Addr::LOCALHOST),
                false => IpAddr::V4(Ipv4Addr::LOCALHOST),
            })
        };
        let routers = self.virtual_routers_from(source_of);
        match routers.and_then(|routers| Vrrp::validate(&routers)) {
            Ok(()) => Ok(()),
            Err(VrrpStartError::Config { source: error, .. }) => match error {
                VrrpError::Vrid(_) => problem("virtual_router_id", &error),
                VrrpError::Priority(_) => problem("priority", &error),
                VrrpError::Interval { .. } => problem("advert_interval", &error),
                VrrpError::Ipv6InVersion2(_) => problem(
                    "version",
                    &"VRRP version 2 does not support IPv6: remove the IPv6 addresses, or set \
                      `version = 3`",
                ),
                VrrpError::NoAddresses
                | VrrpError::TooManyAddresses(_)
                | VrrpError::AddressFamily { .. } => problem("addresses", &error),
            },
            Err(error) => problem("interface", &error),
        }
    }

    /// Returns all addresses that the master has.
    pub(super) fn virtual_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().chain(&self.excluded_addresses);
        addresses.map(|FromText(address)| address.ip())
    }

    /// Returns the interface that the master has IPv4 addresses on.
    pub(super) fn address_interface(&self) -> String {
        match self.virtual_mac {
            true => format!("vrrp.{}", self.virtual_router_id),
            false => self.interface.clone(),
        }
    }

    /// Returns whether an address of a family is configured.
    pub(super) fn has_family(&self, is_v6: bool) -> bool {
        self.addresses.iter().any(|FromText(address)| address.ip().is_ipv6() == is_v6)
    }

    /// Refuses what is for an address family without addresses: it would be ignored.
    fn validate_families(&self) -> Result<(), ConfigProblem> {
        let sources = [("source", self.source), ("source_v6", self.source_v6)];
        let sources = sources.into_iter().filter_map(|(key, source)| Some((key, source?)));
        let peers = self.peers.iter().map(|peer| ("peers", *peer));
        let routes = self.routes.iter().map(|route| ("routes", route.to.0.ip()));
        for (key, ip) in sources.chain(peers).chain(routes) {
            if !self.has_family(ip.is_ipv6()) {
                let family = if ip.is_ipv6() { "IPv6" } else { "IPv4" };
                let reason = format!(
                    "{ip} is for a virtual router with {family} addresses, and `addresses` has none"
                );
                return Err(ConfigProblem::at_key(key, reason));
            }
        }
        Ok(())
    }

    fn validate_tracks(&self) -> Result<(), ConfigProblem> {
        let mut names = BTreeSet::new();
        for (n, track) in self.tracks.iter().enumerate() {
            let path = [KeyPathSegment::Key("track"), KeyPathSegment::Index(n)];
            let result = if names.insert(&track.name) {
                track.validate()
            } else {
                let reason = format!("there is another tracked item {:?}", track.name);
                Err(ConfigProblem::at_key("name", reason))
            };
            result.map_err(|problem| problem.prefixed(&path))?;
        }
        Ok(())
    }

    /// Refuses programs of checks that this machine cannot start.
    pub(super) fn validate_programs(&self) -> Result<(), ConfigProblem> {
        self.tracks.iter().enumerate().try_for_each(|(n, track)| {
            let path = [KeyPathSegment::Key("track"), KeyPathSegment::Index(n)];
            track.validate_program().map_err(|problem| problem.prefixed(&path))
        })
    }

    fn parse_auth_key(&self) -> Option<Result<AuthKey, AuthKeyLengthError>> {
        self.auth_key.as_ref().map(|HexSecret(bytes)| AuthKey::new(1, bytes))
    }

    /// Returns a virtual router for each address family that has addresses.
    pub(crate) fn virtual_routers(&self) -> Result<Vec<VirtualRouterConfig>, VrrpStartError> {
        self.virtual_routers_from(|is_v6| Vrrp::default_source(&self.interface, is_v6))
    }

    /// As [`virtual_routers`](Self::virtual_routers); `default_source` returns the source address of a
    /// family for which none is configured.
    fn virtual_routers_from(
        &self,
        default_source: impl Fn(bool) -> Result<IpAddr, VrrpStartError>,
    ) -> Result<Vec<VirtualRouterConfig>, VrrpStartError> {
        let mut routers = Vec::new();
        for is_v6 in [false, true] {
            let is_family = |ip: IpAddr| ip.is_ipv6() == is_v6;
            let addresses: Vec<_> =
                self.addresses.iter().filter(|FromText(address)| is_family(address.ip())).collect();
            if addresses.is_empty() {
                continue;
            }
            let source = if is_v6 { self.source_v6 } else { self.source };
            let source = match source {
                Some(source) => source,
                None => default_source(is_v6)?,
            };
            let mut router = VirtualRouterConfig::new(&*self.interface, self.router_config(source))
                .virtual_mac(self.virtual_mac)
                .ignore_passwords(self.ignore_passwords)
                .reset_connections(self.reset_connections);
            router = router.name(self.router_names().nth(routers.len()).unwrap_or_default());
            if self.checksum_as_v2 {
                router = router.checksum(ChecksumCoverage::MessageOnly);
            }
            for FromText(address) in addresses {
                router = router.address(*address);
            }
            // Of either family, on the first of the table's virtual routers.
            for FromText(address) in self.excluded_addresses.iter().filter(|_| routers.is_empty()) {
                router = router.excluded_address(*address);
            }
            for route in self.routes.iter().filter(|route| is_family(route.to.0.ip())) {
                router = router.route(route.to_virtual_route());
            }
            for peer in self.peers.iter().filter(|peer| is_family(**peer)) {
                router = router.peer(*peer);
            }
            if let Some(Ok(key)) = self.parse_auth_key() {
                router = router.key(key);
            }
            for track in &self.tracks {
                router = router.track(&*track.name, track.track_effect());
            }
            routers.push(router);
        }
        Ok(routers)
    }

    fn router_config(&self, source: IpAddr) -> ElectionConfig {
        let preempt = match (self.preempt, self.preempt_delay) {
            (false, _) => PreemptMode::Never,
            (true, Some(HumanDuration(delay))) => PreemptMode::After(delay),
            (true, None) => PreemptMode::Always,
        };
        let version = if self.version == Some(2) { VrrpVersion::V2 } else { VrrpVersion::V3 };
        let election =
            ElectionConfig::new(self.virtual_router_id, source).version(version).preempt(preempt);
        let election = apply_if_some(election, self.priority, ElectionConfig::priority);
        let election =
            apply_duration_if_some(election, self.advert_interval, ElectionConfig::interval);
        let election =
            apply_duration_if_some(election, self.start_delay, ElectionConfig::start_delay);
        apply_if_some(election, self.announce, |election, announce| announce.apply_to(election))
    }

    /// Returns the keys with commands, each with its state.
    pub(super) fn notify_commands(
        &self,
    ) -> impl Iterator<Item = (&'static str, Option<VrrpState>, &NotifyCommandList)> {
        let commands = [
            ("notify", None, &self.notify),
            ("notify_master", Some(VrrpState::Master), &self.notify_master),
            ("notify_backup", Some(VrrpState::Backup), &self.notify_backup),
            ("notify_fault", Some(VrrpState::Fault), &self.notify_fault),
            ("notify_stop", Some(VrrpState::Init), &self.notify_stop),
        ];
        commands
            .into_iter()
            .filter_map(|(key, state, commands)| Some((key, state, commands.as_ref()?)))
    }

    pub(crate) fn build_notify(&self) -> Option<NotifyCommands> {
        let report = |failure: &str| tracing::warn!("{failure}");
        let mut notify = apply_duration_if_some(
            NotifyCommands::new().router(self.router_name()).on_failure(report),
            self.notify_timeout,
            NotifyCommands::timeout,
        );
        let mut has_command = false;
        for (_, state, commands) in self.notify_commands() {
            for command in commands.to_commands() {
                has_command = true;
                notify = match state {
                    Some(state) => notify.on_state(state, command),
                    None => notify.on_any_state(command),
                };
            }
        }
        has_command.then_some(notify)
    }

    /// Returns the name of the table's first virtual router.
    pub(super) fn router_name(&self) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| {
            let suffix = if self.has_family(false) { "" } else { V6_SUFFIX };
            format!("{}@{}{suffix}", self.virtual_router_id, self.interface)
        })
    }

    /// Returns the names of the table's virtual routers.
    pub(super) fn router_names(&self) -> impl Iterator<Item = String> {
        let has_both = self.has_family(false) && self.has_family(true);
        let first = self.router_name();
        let second = has_both.then(|| format!("{first}{V6_SUFFIX}"));
        std::iter::once(first).chain(second)
    }
}
