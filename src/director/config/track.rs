//! The tracked items of a `[[vrrp]]` table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::check::CheckConfig;
use super::error::{ConfigProblem, KeyPathSegment};
use super::table::config_table;
use super::value::deserialize_some_address;
use crate::health::HealthPlan;
use crate::vrrp::{BUILT_IN_TRACKS, TrackEffect};

config_table! {
/// A builder of a [`TrackConfig`].
builder TrackConfigBuilder;

/// A tracked item: a network interface or a check, on which the priority depends.
///
/// Exactly one of `interface` and `check` is required.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct TrackConfig {
    /// The name of the item in logs. Items of the same name in several `[[vrrp]]` tables must be the
    /// same but for `weight`.
    pub(crate) name: String,
    /// Below 0: how much the priority is reduced while the item is down. Above 0: how much it is
    /// raised while the item is up. From -254 to 254, and not 0. Default: none, the state is fault
    /// while the item is down.
    weight: Option<i16>,
    /// Takes the item as up while its check fails or its link is down, and as down otherwise, such as
    /// for a file whose presence means maintenance. Default: `false`.
    #[serde(default)]
    pub(crate) inverted: bool,
    /// The network interface whose link is tracked. Default: none.
    pub(crate) interface: Option<String>,
    /// The address and port that `check` asks. Default: none; a check of type `command` or `file`
    /// needs none.
    #[serde(default, deserialize_with = "deserialize_some_address")]
    address: Option<SocketAddr>,
    /// The check that is tracked. Default: none.
    check: Option<CheckConfig>,
}
}

/// What the names of tracked services begin with; see `service_weight`.
pub(crate) const SERVICE_TRACK_PREFIX: &str = "service ";

/// The address for a check that connects to none.
const HOLDER_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

impl TrackConfig {
    /// Returns a builder of an item of this name: one of `interface` and `check` must be set.
    pub fn builder(name: impl Into<String>) -> TrackConfigBuilder {
        let (weight, interface, address, check) = (None, None, None, None);
        let (name, inverted) = (name.into(), false);
        let table = Self { name, weight, inverted, interface, address, check };
        TrackConfigBuilder { table }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigProblem> {
        if BUILT_IN_TRACKS.contains(&&*self.name) || self.name.starts_with(SERVICE_TRACK_PREFIX) {
            let reason = format!(
                "{:?} is the name of an item that the director itself tracks: use another name",
                self.name
            );
            return Err(ConfigProblem::at_key("name", reason));
        }
        if self.interface.is_some() == self.check.is_some() {
            return Err(ConfigProblem::at_key(
                "check",
                "exactly one of `check` and `interface` is required",
            ));
        }
        if let Some(weight) = self.weight
            && (weight == 0 || weight.unsigned_abs() > 254)
        {
            let reason = format!("the weight is {weight}, and must be from -254 to 254 and not 0");
            return Err(ConfigProblem::at_key("weight", reason));
        }
        self.check_plan().map(drop)
    }

    /// Tells whether another item is this one, but for its weight.
    pub(crate) fn is_same_item(&self, other: &Self) -> bool {
        (&self.name, self.inverted, &self.interface, &self.address, &self.check)
            == (&other.name, other.inverted, &other.interface, &other.address, &other.check)
    }

    pub(super) fn track_effect(&self) -> TrackEffect {
        let amount = |weight: i16| u8::try_from(weight.unsigned_abs()).unwrap_or(u8::MAX);
        match self.weight {
            None => TrackEffect::Fault,
            Some(weight) if weight < 0 => TrackEffect::Minus(amount(weight)),
            Some(weight) => TrackEffect::Plus(amount(weight)),
        }
    }

    pub(crate) fn check_address(&self) -> SocketAddr {
        self.address.unwrap_or(HOLDER_ADDRESS)
    }

    /// Returns the health check of the item; `None` for an interface.
    pub(crate) fn check_plan(&self) -> Result<Option<HealthPlan>, ConfigProblem> {
        let Some(check) = &self.check else { return Ok(None) };
        if check.virtual_address.is_some() {
            let path = [KeyPathSegment::Key("check"), KeyPathSegment::Key("virtual_address")];
            let reason = "a tracked item belongs to no service, and so to no virtual address";
            return Err(ConfigProblem::new(path, reason));
        }
        let checks = check
            .to_checks(None)
            .and_then(|checks| {
                let address = self.address.map(|address| address.ip());
                address.map_or(Ok(()), |address| check.validate_source(address)).map(|()| checks)
            })
            .map_err(|problem| problem.prefixed(&[KeyPathSegment::Key("check")]))?;
        let plan = HealthPlan::new(&*self.name).check(checks);
        plan.validate().map_err(|error| ConfigProblem::at_key("check", error.to_string()))?;
        Ok(Some(plan))
    }

    /// Refuses a program of the check that this machine cannot start.
    pub(super) fn validate_program(&self) -> Result<(), ConfigProblem> {
        let validated = self.check.as_ref().map_or(Ok(()), CheckConfig::validate_program);
        validated.map_err(|problem| problem.prefixed(&[KeyPathSegment::Key("check")]))
    }
}
