//! Virtual addresses, and what the priority of this director depends on.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;

use super::check::CheckConfig;
use super::error::{ConfigProblem, KeyPathSegment};
use super::value::{
    FromText, HexSecret, HumanDuration, OneOrMany, apply_duration_if_some, apply_if_some,
};
use crate::health::HealthPlan;
use crate::vrrp::{
    AuthKey, AuthKeyLengthError, ChecksumCoverage, ElectionConfig, NotifyCommands, PreemptMode,
    TrackEffect, VirtualAddress, VirtualRoute, VirtualRouterConfig, Vrrp,
    VrrpConfigError as VrrpError, VrrpStartError, VrrpState, VrrpVersion,
};

/// `[vrrp]`, or one of several `[[vrrp]]`, which are master together or not at all.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct VrrpConfig {
    name: Option<String>,
    pub(crate) interface: String,
    pub(crate) virtual_router_id: u8,
    priority: Option<u8>,
    advert_interval: Option<HumanDuration>,
    #[serde(default = "default_true")]
    preempt: bool,
    preempt_delay: Option<HumanDuration>,
    start_delay: Option<HumanDuration>,
    addresses: Vec<FromText<VirtualAddress>>,
    #[serde(default)]
    routes: Vec<VirtualRouteConfig>,
    /// What it sends from; otherwise the first of the interface.
    source: Option<IpAddr>,
    source_v6: Option<IpAddr>,
    #[serde(default)]
    peers: Vec<IpAddr>,
    version: Option<u8>,
    #[serde(default)]
    checksum_as_v2: bool,
    #[serde(default)]
    virtual_mac: bool,
    #[serde(default)]
    ignore_passwords: bool,
    /// In hexadecimal, 32 to 64 bytes.
    auth_key: Option<HexSecret>,
    announce: Option<AddressAnnounceConfig>,
    /// What is taken off the priority while a service has no server that could serve.
    pub(crate) service_weight: Option<u8>,
    #[serde(default, rename = "track")]
    pub(crate) tracks: Vec<TrackConfig>,
    /// A program and its arguments, for whatever it becomes; and for one of the states.
    notify: Option<Vec<String>>,
    notify_master: Option<Vec<String>>,
    notify_backup: Option<Vec<String>>,
    notify_fault: Option<Vec<String>>,
    notify_timeout: Option<HumanDuration>,
}

const fn default_true() -> bool {
    true
}

/// A route that the master has.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct VirtualRouteConfig {
    to: FromText<VirtualAddress>,
    via: Option<IpAddr>,
    source: Option<IpAddr>,
    metric: Option<u32>,
}

impl VirtualRouteConfig {
    fn to_virtual_route(&self) -> VirtualRoute {
        let it = apply_if_some(VirtualRoute::new(self.to.0), self.via, VirtualRoute::via);
        let it = apply_if_some(it, self.source, VirtualRoute::source);
        apply_if_some(it, self.metric, VirtualRoute::metric)
    }
}

/// How a new master announces its addresses: so often more, so long apart.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct AddressAnnounceConfig {
    again: u32,
    every: HumanDuration,
}

/// `[[vrrp.track]]`: a link, or a check, that the priority depends on.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrackConfig {
    pub(crate) name: String,
    /// Below 0: taken off while it is down. Above: added while it is up. None: it must be up.
    weight: Option<i16>,
    pub(crate) interface: Option<String>,
    /// What is asked, where the check asks anything of an address.
    address: Option<SocketAddr>,
    check: Option<CheckConfig>,
}

/// What a check that asks for no address is told.
const PLACEHOLDER_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl TrackConfig {
    fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong = |key, what: &str| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        if self.interface.is_some() == self.check.is_some() {
            return wrong("check", "either `check` or `interface`");
        }
        if self.weight.is_some_and(|weight| weight == 0 || weight.unsigned_abs() > 254) {
            return wrong("weight", "from -254 to 254, and not 0; without it, it must be up");
        }
        self.check_plan().map(drop)
    }

    fn track_effect(&self) -> TrackEffect {
        let by = |weight: i16| u8::try_from(weight.unsigned_abs()).unwrap_or(u8::MAX);
        match self.weight {
            None => TrackEffect::Fault,
            Some(weight) if weight < 0 => TrackEffect::Minus(by(weight)),
            Some(weight) => TrackEffect::Plus(by(weight)),
        }
    }

    /// What the election calls it.
    pub(crate) fn label(&self) -> String {
        format!("track {}", self.name)
    }

    pub(crate) fn check_address(&self) -> SocketAddr {
        self.address.unwrap_or(PLACEHOLDER_ADDRESS)
    }

    /// How it is asked, unless it is a link.
    pub(crate) fn check_plan(&self) -> Result<Option<HealthPlan>, ConfigProblem> {
        let Some(check) = &self.check else { return Ok(None) };
        let at = |fault: ConfigProblem| fault.prefixed(&[KeyPathSegment::Key("check")]);
        let plan = HealthPlan::new(&*self.name).check(check.to_checks().map_err(at)?);
        let sound = plan.validate();
        sound.map_err(|error| {
            ConfigProblem::new([KeyPathSegment::Key("check")], error.to_string())
        })?;
        Ok(Some(plan))
    }
}

impl VrrpConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        let wrong = |key, what: &str| Err(ConfigProblem::new([KeyPathSegment::Key(key)], what));
        if self.addresses.is_empty() {
            return wrong("addresses", "there is none");
        }
        if !matches!(self.version, None | Some(2 | 3)) {
            return wrong("version", "2 or 3");
        }
        if !self.preempt && self.preempt_delay.is_some() {
            return wrong("preempt_delay", "it does not preempt at all");
        }
        for (key, command) in self.notify_commands() {
            if command.is_empty() {
                return wrong(key, "a program, and its arguments if any");
            }
        }
        if let Some(Err(error)) = self.parse_auth_key() {
            return wrong("auth_key", &error.to_string());
        }
        let mut names = BTreeMap::new();
        for (n, track) in self.tracks.iter().enumerate() {
            let at = [KeyPathSegment::Key("track"), KeyPathSegment::Index(n)];
            if names.insert(&track.name, ()).is_some() {
                let what = format!("there is a track {:?} already", track.name);
                return Err(ConfigProblem::new([KeyPathSegment::Key("name")], what).prefixed(&at));
            }
            track.validate().map_err(|fault| fault.prefixed(&at))?;
        }
        let any = match self.version {
            Some(2) => Ipv4Addr::LOCALHOST.into(),
            _ => IpAddr::from(Ipv6Addr::LOCALHOST),
        };
        self.router_config(any).validate().or_else(|error| match error {
            VrrpError::Vrid(_) => wrong("virtual_router_id", &error.to_string()),
            VrrpError::Priority(_) => wrong("priority", &error.to_string()),
            _ => wrong("advert_interval", &error.to_string()),
        })
    }

    fn parse_auth_key(&self) -> Option<Result<AuthKey, AuthKeyLengthError>> {
        self.auth_key.as_ref().map(|HexSecret(bytes)| AuthKey::new(1, bytes))
    }

    /// A virtual router for each family that there are addresses of.
    pub(crate) fn virtual_routers(&self) -> Result<Vec<VirtualRouterConfig>, VrrpStartError> {
        let mut routers = Vec::new();
        for is_v6 in [false, true] {
            let addresses: Vec<_> =
                self.addresses.iter().filter(|FromText(it)| it.ip().is_ipv6() == is_v6).collect();
            if addresses.is_empty() {
                continue;
            }
            let source = if is_v6 { self.source_v6 } else { self.source };
            let source = match source {
                Some(source) => source,
                None => Vrrp::default_source(&self.interface, is_v6)?,
            };
            let mut router = VirtualRouterConfig::new(&*self.interface, self.router_config(source))
                .virtual_mac(self.virtual_mac)
                .ignore_passwords(self.ignore_passwords);
            let name = self.name.clone();
            let name = name.unwrap_or(format!("{}@{}", self.virtual_router_id, self.interface));
            let is_second = is_v6 && routers.len() == 1;
            router = router.name(if is_second { name + "/v6" } else { name });
            if self.checksum_as_v2 {
                router = router.checksum(ChecksumCoverage::MessageOnly);
            }
            for FromText(address) in addresses {
                router = router.address(*address);
            }
            for route in self.routes.iter().filter(|it| it.to.0.ip().is_ipv6() == is_v6) {
                router = router.route(route.to_virtual_route());
            }
            for peer in self.peers.iter().filter(|peer| peer.is_ipv6() == is_v6) {
                router = router.peer(*peer);
            }
            if let Some(Ok(key)) = self.parse_auth_key() {
                router = router.key(key);
            }
            for track in &self.tracks {
                router = router.track(track.label(), track.track_effect());
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
        let it = ElectionConfig::new(self.virtual_router_id, source).version(version);
        let it = apply_if_some(it.preempt(preempt), self.priority, ElectionConfig::priority);
        let it = apply_duration_if_some(it, self.advert_interval, ElectionConfig::interval);
        let it = apply_duration_if_some(it, self.start_delay, ElectionConfig::start_delay);
        apply_if_some(it, self.announce, |it, announce| {
            it.announce_repeats(announce.again, announce.every.0)
        })
    }

    fn notify_commands(&self) -> impl Iterator<Item = (&'static str, &Vec<String>)> {
        let all = [
            ("notify", &self.notify),
            ("notify_master", &self.notify_master),
            ("notify_backup", &self.notify_backup),
            ("notify_fault", &self.notify_fault),
        ];
        all.into_iter().filter_map(|(key, command)| Some((key, command.as_ref()?)))
    }

    pub(crate) fn build_notify(&self) -> Option<NotifyCommands> {
        let report = |what: &str| tracing::warn!("vrrp notify: {what}");
        let mut notify = apply_duration_if_some(
            NotifyCommands::new().on_failure(report),
            self.notify_timeout,
            NotifyCommands::timeout,
        );
        let mut is_any = false;
        for (key, command) in self.notify_commands() {
            is_any = true;
            notify = match key {
                "notify_master" => notify.on_state(VrrpState::Master, command),
                "notify_backup" => notify.on_state(VrrpState::Backup, command),
                "notify_fault" => notify.on_state(VrrpState::Fault, command),
                _ => notify.on_any_state(command),
            };
        }
        is_any.then_some(notify)
    }
}

/// Virtual routers that exclude each other, and tracks that mean two things.
pub(super) fn validate_all(
    OneOrMany(all): &OneOrMany<VrrpConfig>,
) -> Result<(), (usize, ConfigProblem)> {
    let (mut routers, mut tracks) = (BTreeMap::new(), BTreeMap::new());
    for (n, vrrp) in all.iter().enumerate() {
        vrrp.validate().map_err(|fault| (n, fault))?;
        let wrong =
            |key, what: String| Err((n, ConfigProblem::new([KeyPathSegment::Key(key)], what)));
        let id = vrrp.virtual_router_id;
        if routers.insert((&vrrp.interface, id), ()).is_some() {
            let what = format!("there is a virtual router {id} on {} already", vrrp.interface);
            return wrong("virtual_router_id", what);
        }
        for track in &vrrp.tracks {
            let known = tracks.insert(&track.name, track);
            let differs = |known: &TrackConfig| {
                (&known.interface, &known.address, &known.check)
                    != (&track.interface, &track.address, &track.check)
            };
            if known.is_some_and(differs) {
                return wrong("track", format!("another track is called {:?}", track.name));
            }
        }
    }
    Ok(())
}
