//! Whether a backend may be chosen, and who said so.

use std::fmt;

/// What the operator wants of a backend. Checkers never touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub enum Admin {
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
pub enum Standing {
    /// Nothing speaks against it.
    #[default]
    Good,
    /// Out for a while: its answers were bad.
    Ejected,
    /// Let in with one piece of work at a time, to see whether it is well again.
    OnTrial,
}

/// What follows from [`Admin`], [`Health`], [`Standing`] and the weight: may the backend be given
/// new work?
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
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

impl State {
    pub(super) const fn of(admin: Admin, health: Health, standing: Standing, weight: u32) -> Self {
        match (admin, health, standing) {
            (Admin::Disabled, _, _) => Self::Disabled,
            (Admin::Draining, _, _) => Self::Draining,
            (Admin::Enabled, Health::Down, _) => Self::Down,
            (Admin::Enabled, Health::Up, Standing::Ejected) => Self::Ejected,
            (Admin::Enabled, Health::Up, _) if weight == 0 => Self::Quiesced,
            (Admin::Enabled, Health::Up, _) => Self::Eligible,
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

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_operator_outranks_the_checker_and_both_outrank_the_weight() {
        use Standing::{Ejected, Good, OnTrial};
        assert_eq!(State::of(Admin::Disabled, Health::Down, Good, 0), State::Disabled);
        assert_eq!(State::of(Admin::Draining, Health::Down, Ejected, 1), State::Draining);
        assert_eq!(State::of(Admin::Enabled, Health::Down, Ejected, 0), State::Down);
        assert_eq!(State::of(Admin::Enabled, Health::Up, Ejected, 0), State::Ejected);
        assert_eq!(State::of(Admin::Enabled, Health::Up, Good, 0), State::Quiesced);
        assert_eq!(State::of(Admin::Enabled, Health::Up, OnTrial, 1), State::Eligible);
    }
}
