//! The states of an announced address, and what they follow from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operator wants of all announcements of a director.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnnounceMode {
    /// Addresses are announced by the health of their services.
    #[default]
    Normal,
    /// Addresses are announced with a higher metric: routers use other directors, if there are any.
    Drain,
    /// Addresses are withdrawn.
    Withdraw,
}

/// The state of an announced address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnnouncementState {
    /// It is not known yet whether the services at the address can serve. The announcement is as a predecessor left
    /// it.
    Pending,
    /// Routers are to prefer this director.
    Announced,
    /// Routers are to prefer other directors, if there are any.
    Draining,
    /// Routers are to use this director if there is no other.
    LastResort,
    /// Routers are not to use this director.
    Withdrawn,
}

/// Why an announced address has its state.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AnnounceReason {
    /// The health of the services at the address is not known yet.
    HealthUnknown,
    /// All services at the address have their quorum.
    QuorumMet,
    /// A service at the address does not have its quorum.
    QuorumLost,
    /// All services have their quorum again, and the recovery delay is not over.
    Recovering,
    /// [`AnnounceMode::Drain`] is set.
    DrainMode,
    /// [`AnnounceMode::Withdraw`] is set.
    WithdrawMode,
}

impl AnnounceMode {
    /// Returns the name: `normal`, `drain` or `withdraw`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Drain => "drain",
            Self::Withdraw => "withdraw",
        }
    }
}

impl AnnouncementState {
    /// All states.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Announced, Self::Draining, Self::LastResort, Self::Withdrawn];

    /// Returns the name: `pending`, `announced`, `draining`, `last_resort` or `withdrawn`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Announced => "announced",
            Self::Draining => "draining",
            Self::LastResort => "last_resort",
            Self::Withdrawn => "withdrawn",
        }
    }
}

impl fmt::Display for AnnounceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for AnnouncementState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for AnnounceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HealthUnknown => "the health of its services is not known yet",
            Self::QuorumMet => "its services have their quorum",
            Self::QuorumLost => "one of its services does not have its quorum",
            Self::Recovering => "its services have their quorum again, and the recovery delay runs",
            Self::DrainMode => "this director is drained",
            Self::WithdrawMode => "this director withdraws its addresses",
        })
    }
}
