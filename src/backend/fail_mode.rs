//! What a set does when too few of its backends are healthy.

use super::BackendState;

/// Whether backends that are not healthy are used rather than none, or than too few.
///
/// Of the backends that the operator wants to serve (enabled, weight above 0), those count as
/// healthy that are neither [down](BackendState::Down) nor [ejected](BackendState::Ejected). Where the mode says
/// so the set is *in panic*: health is ignored, and every one of them is
/// [eligible](BackendState::Eligible).
///
/// Checks are wrong together more often than many servers fail together: a check's own network
/// breaks, a path that all servers share gets slow. And the few that are left would be drowned by
/// the work of all. On the other hand, a server that refuses costs each client an attempt.
///
/// The `priority` scheduler has a panic threshold of its own for each tier; this one is for the set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum FailMode {
    /// Who is not healthy is not used: if nobody is, clients get the sorry server or an error.
    /// What LVS and HAProxy do.
    #[default]
    Closed,
    /// When nobody is healthy, all are used. What cloud network balancers do.
    Open,
    /// When fewer than this percentage are healthy (1 to 100), all are used. Envoy's panic
    /// threshold; its default is 50.
    PanicBelow(u8),
}

impl FailMode {
    /// Tells whether health is to be ignored: `healthy` of `wanted` are.
    #[must_use]
    pub const fn is_panic(self, healthy: usize, wanted: usize) -> bool {
        match self {
            _ if healthy >= wanted => false,
            Self::Closed => false,
            Self::Open => healthy == 0,
            Self::PanicBelow(percent) => healthy * 100 < wanted * percent as usize,
        }
    }

    /// Counts the healthy and the wanted among states and weights.
    pub(super) fn count_healthy(
        members: impl Iterator<Item = (BackendState, u32)>,
    ) -> (usize, usize) {
        members.fold((0, 0), |(healthy, wanted), (state, weight)| {
            let up = state == BackendState::Eligible;
            let out = state.is_unhealthy() && weight != 0;
            (healthy + usize::from(up), wanted + usize::from(up || out))
        })
    }
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
        assert!(!half.is_panic(0, 0), "nobody is wanted");
        assert!(
            FailMode::PanicBelow(100).is_panic(3, 4) && !FailMode::PanicBelow(100).is_panic(4, 4)
        );
    }
}
