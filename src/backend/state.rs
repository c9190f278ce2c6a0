//! Whether a backend may be chosen, and who said so.

use std::fmt;

/// What the operator wants of a backend. Checkers never touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum BackendAdminState {
    /// Takes part.
    #[default]
    Enabled,
    /// Takes no new work; what it has goes on. Affinity to it ends, unless
    /// [told otherwise](crate::balancer::PersistenceBuilder::draining).
    Draining,
    /// Out of service, whatever its health.
    Disabled,
}

/// What checks say of a backend. Operators never touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum Health {
    /// Answers. A backend nobody checks is up.
    #[default]
    Up,
    /// Does not answer.
    Down,
}

/// What a backend's own traffic says of it. Neither operators nor checks touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum OutlierState {
    /// Nothing speaks against it.
    #[default]
    Good,
    /// Out for a while: its answers were bad.
    Ejected,
    /// Let in with one piece of work at a time, to see whether it is well again.
    OnTrial,
}

/// What follows from [`BackendAdminState`], [`Health`], [`OutlierState`] and the weight: may the backend be given
/// new work?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BackendState {
    /// Takes new work.
    Eligible,
    /// Weight 0: no new work, the old goes on, as in IPVS.
    Quiesced,
    /// Drained by the operator.
    Draining,
    /// Out by a check.
    Down,
    /// Out by its own traffic.
    Ejected,
    /// Would be eligible, but the set has lost its [`Quorum`](super::Quorum).
    Withheld,
    /// Out by the operator.
    Disabled,
}

impl BackendState {
    pub(super) const fn resolve(
        admin: BackendAdminState,
        health: Health,
        standing: OutlierState,
        weight: u32,
    ) -> Self {
        match (admin, health, standing) {
            (BackendAdminState::Disabled, _, _) => Self::Disabled,
            (BackendAdminState::Draining, _, _) => Self::Draining,
            (BackendAdminState::Enabled, Health::Down, _) => Self::Down,
            (BackendAdminState::Enabled, Health::Up, OutlierState::Ejected) => Self::Ejected,
            (BackendAdminState::Enabled, Health::Up, _) if weight == 0 => Self::Quiesced,
            (BackendAdminState::Enabled, Health::Up, _) => Self::Eligible,
        }
    }

    /// Tells whether the backend would serve, were it well: out by a check or by its own traffic.
    #[must_use]
    pub const fn is_unhealthy(self) -> bool {
        matches!(self, Self::Down | Self::Ejected)
    }

    /// The short name in metrics and logs.
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
    fn the_operator_outranks_the_checker_and_both_outrank_the_weight() {
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
