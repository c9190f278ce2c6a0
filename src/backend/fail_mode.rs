//! What a set does when too few of its backends are healthy.

use std::fmt::Debug;

use super::BackendState;
use crate::setting::SettingError;

/// Selects whether a set uses unhealthy backends when none, or too few, are healthy.
///
/// A backend is *in service* if the operator enabled it and its weight is above 0. It counts as healthy
/// if it is neither [down](BackendState::Down) nor [ejected](BackendState::Ejected). When too few are
/// healthy the set is *in panic*: it ignores health, and every backend in service is
/// [eligible](BackendState::Eligible).
///
/// Many failed checks at once more often mean that the checks fail (their network, a page that all
/// servers share) than that the servers do, and the work of all would overload the few that are left.
/// On the other hand, each client loses an attempt at a server that refuses.
///
/// The `priority` scheduler has a panic threshold of its own for each tier; this one is for the set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FailMode {
    /// Unhealthy backends are never used; if none is healthy, clients get the sorry server or an
    /// error. LVS and HAProxy do this.
    #[default]
    Closed,
    /// If no backend is healthy, all are used. Network balancers of cloud providers do this.
    Open,
    /// If fewer than this percentage are healthy (1 to 100), all are used. This is Envoy's panic
    /// threshold, whose default is 50.
    PanicBelow(u8),
}

impl FailMode {
    /// Tells whether health is ignored when `healthy` of `in_service` backends are healthy.
    #[must_use]
    pub const fn is_panic(self, healthy: usize, in_service: usize) -> bool {
        match self {
            _ if healthy >= in_service => false,
            Self::Closed => false,
            Self::Open => healthy == 0,
            Self::PanicBelow(percent) => healthy * 100 < in_service * percent as usize,
        }
    }

    /// Checks the percentage of [`PanicBelow`](Self::PanicBelow).
    pub(crate) fn validate(self) -> Result<(), SettingError> {
        match self {
            Self::PanicBelow(percent) if !(1..=100).contains(&percent) => {
                Err(panic_percent_error(percent))
            }
            Self::Closed | Self::Open | Self::PanicBelow(_) => Ok(()),
        }
    }

    /// Counts the healthy backends and those in service, from states and weights.
    pub(super) fn count_healthy(
        members: impl Iterator<Item = (BackendState, u32)>,
    ) -> (usize, usize) {
        members.fold((0, 0), |(healthy, in_service), (state, weight)| {
            let up = state == BackendState::Eligible;
            let out = state.is_unhealthy() && weight != 0;
            (healthy + usize::from(up), in_service + usize::from(up || out))
        })
    }
}

/// Makes the error for a percentage that is out of the range, of a type that may hold more than `u8`.
pub(crate) fn panic_percent_error(percent: impl Debug) -> SettingError {
    SettingError::new("fail_mode", percent, "from 1 to 100")
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_mode_at_its_edge() {
        assert!(!FailMode::Closed.is_panic(0, 4));
        assert!(FailMode::Open.is_panic(0, 4) && !FailMode::Open.is_panic(1, 4));
        let half = FailMode::PanicBelow(50);
        assert!(half.is_panic(1, 4) && !half.is_panic(2, 4));
        assert!(!half.is_panic(0, 0), "no backend is in service");
        assert!(
            FailMode::PanicBelow(100).is_panic(3, 4) && !FailMode::PanicBelow(100).is_panic(4, 4)
        );
    }
}
