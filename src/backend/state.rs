//! The states of a backend: what the operator, checks and outlier detection set, and what follows.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// The operator's state of a backend. Health checks never change it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum BackendAdminState {
    /// The backend serves. In the director's API: `up`.
    #[cfg_attr(feature = "serde", serde(rename = "up"))]
    #[default]
    Enabled,
    /// The backend gets no new work, and keeps the connections that it has. Persistence to it ends,
    /// unless [configured otherwise](crate::balancer::PersistenceBuilder::draining). In the director's
    /// API: `drain`.
    #[cfg_attr(feature = "serde", serde(rename = "drain"))]
    Draining,
    /// The backend is out of service, whatever its health. In the director's API: `down`.
    #[cfg_attr(feature = "serde", serde(rename = "down"))]
    Disabled,
}

/// The health of a backend as checks found it. Operators never change it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Health {
    /// The backend answers. A backend without checks is up.
    #[default]
    Up,
    /// The backend does not answer.
    Down,
}

/// The health of backends until a check has a result.
#[derive(Clone, Debug, Default)]
pub(crate) struct InitialHealthRule {
    pub(crate) default: Health,
    /// The health of backends at these addresses, in place of the default.
    pub(crate) by_address: BTreeMap<SocketAddr, Health>,
}

impl InitialHealthRule {
    /// Returns the health of a backend at this address, or without one.
    pub(super) fn health_of(&self, address: Option<SocketAddr>) -> Health {
        let own = address.and_then(|address| self.by_address.get(&address));
        own.copied().unwrap_or(self.default)
    }
}

impl From<Health> for InitialHealthRule {
    fn from(default: Health) -> Self {
        Self { default, by_address: BTreeMap::new() }
    }
}

/// The outlier state of a backend, which its own traffic decides. Operators and checks never change it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OutlierState {
    /// The backend is not an outlier.
    #[default]
    Good,
    /// The backend is out for a time, because its answers were bad.
    Ejected,
    /// The backend gets one lease at a time, whose outcome decides whether the backend returns.
    OnTrial,
}

/// The state that follows from [`BackendAdminState`], [`Health`], [`OutlierState`] and the weight: it
/// says whether the backend may get new work.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum BackendState {
    /// The backend gets new work.
    Eligible,
    /// The weight is 0: no new work, and what the backend has goes on, as in IPVS.
    Quiesced,
    /// The operator drains the backend.
    Draining,
    /// A health check failed.
    Down,
    /// Outlier detection ejected the backend.
    Ejected,
    /// The backend would be eligible, but the set does not meet its [`Quorum`](super::Quorum).
    Withheld,
    /// The operator disabled the backend.
    Disabled,
}

impl BackendState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Eligible,
        Self::Quiesced,
        Self::Draining,
        Self::Down,
        Self::Ejected,
        Self::Withheld,
        Self::Disabled,
    ];

    pub(super) const fn resolve(
        admin: BackendAdminState,
        health: Health,
        outlier_state: OutlierState,
        weight: u32,
    ) -> Self {
        match (admin, health, outlier_state) {
            (BackendAdminState::Disabled, _, _) => Self::Disabled,
            (BackendAdminState::Draining, _, _) => Self::Draining,
            (BackendAdminState::Enabled, Health::Down, _) => Self::Down,
            (BackendAdminState::Enabled, Health::Up, OutlierState::Ejected) => Self::Ejected,
            (BackendAdminState::Enabled, Health::Up, _) if weight == 0 => Self::Quiesced,
            (BackendAdminState::Enabled, Health::Up, _) => Self::Eligible,
        }
    }

    /// Tells whether only its health keeps the backend from serving: it is down or ejected.
    #[must_use]
    pub const fn is_unhealthy(self) -> bool {
        matches!(self, Self::Down | Self::Ejected)
    }

    /// Returns the short name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Quiesced => "quiesced",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Withheld => "withheld",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_operator_goes_before_checks_and_both_go_before_the_weight() {
        use OutlierState::{Ejected, Good, OnTrial};
        assert_eq!(
            BackendState::resolve(BackendAdminState::Disabled, Health::Down, Good, 0),
            BackendState::Disabled
        );
        assert_eq!(
            BackendState::resolve(BackendAdminState::Draining, Health::Down, Ejected, 1),
            BackendState::Draining
        );
        assert_eq!(
            BackendState::resolve(BackendAdminState::Enabled, Health::Down, Ejected, 0),
            BackendState::Down
        );
        assert_eq!(
            BackendState::resolve(BackendAdminState::Enabled, Health::Up, Ejected, 0),
            BackendState::Ejected
        );
        assert_eq!(
            BackendState::resolve(BackendAdminState::Enabled, Health::Up, Good, 0),
            BackendState::Quiesced
        );
        assert_eq!(
            BackendState::resolve(BackendAdminState::Enabled, Health::Up, OnTrial, 1),
            BackendState::Eligible
        );
    }
}
