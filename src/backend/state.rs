//! Whether a backend may be chosen, and who said so.

use std::fmt;

/// What the operator wants of a backend. Checkers never touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
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

/// What checks and traffic say of a backend. Operators never touch it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Health {
    /// Answers. A backend nobody checks is up.
    #[default]
    Up,
    /// Does not answer.
    Down,
}

/// What follows from [`Admin`], [`Health`] and the weight: may the backend be given new work?
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
    /// Out by the operator.
    Disabled,
}

impl State {
    pub(super) const fn of(admin: Admin, health: Health, weight: u32) -> Self {
        match (admin, health) {
            (Admin::Disabled, _) => Self::Disabled,
            (Admin::Draining, _) => Self::Draining,
            (Admin::Enabled, Health::Down) => Self::Down,
            (Admin::Enabled, Health::Up) if weight == 0 => Self::Quiesced,
            (Admin::Enabled, Health::Up) => Self::Eligible,
        }
    }

    /// The short name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eligible => "eligible",
            Self::Quiesced => "quiesced",
            Self::Draining => "draining",
            Self::Down => "down",
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
        assert_eq!(State::of(Admin::Disabled, Health::Down, 0), State::Disabled);
        assert_eq!(State::of(Admin::Draining, Health::Down, 1), State::Draining);
        assert_eq!(State::of(Admin::Enabled, Health::Down, 0), State::Down);
        assert_eq!(State::of(Admin::Enabled, Health::Up, 0), State::Quiesced);
        assert_eq!(State::of(Admin::Enabled, Health::Up, 1), State::Eligible);
    }
}
