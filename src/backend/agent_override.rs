//! What a backend asks for through a health check, beside being up or down.

use super::{BackendAdminState, MAX_WEIGHT};

/// What a backend asks for through a health check: another weight, a limit, to be drained.
///
/// The configured weight, limits and state stay as they are, and the override applies on top of them.
/// A field that is `None` overrides nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct AgentOverride {
    /// The weight to use.
    pub weight: Option<AgentWeight>,
    /// The most connections; 0 is no limit. More than
    /// [`MAX_CONNECTION_LIMIT`](super::MAX_CONNECTION_LIMIT) is that limit: a server's answer is not
    /// refused as a setting is.
    pub max_connections: Option<u32>,
    /// The state; the stronger of this and the operator's state holds.
    pub admin: Option<BackendAdminState>,
}

impl AgentOverride {
    /// Returns this override with the fields that `newer` sets.
    #[must_use]
    pub fn updated_with(self, newer: Self) -> Self {
        Self {
            weight: newer.weight.or(self.weight),
            max_connections: newer.max_connections.or(self.max_connections),
            admin: newer.admin.or(self.admin),
        }
    }
}

/// How an agent changes a weight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AgentWeight {
    /// A percentage of the configured weight, rounded up.
    Percent(u32),
    /// A weight that replaces the configured one.
    Exactly(u32),
    /// A number that is added to the configured weight.
    Plus(i32),
}

impl AgentWeight {
    /// Returns the resulting weight, between 0 and [`MAX_WEIGHT`]. A configured weight of 0 stays 0: a
    /// backend that the operator quiesced stays quiesced.
    #[must_use]
    pub fn apply(self, configured: u32) -> u32 {
        if configured == 0 {
            return 0;
        }
        let weight = match self {
            Self::Percent(percent) => (u64::from(configured) * u64::from(percent)).div_ceil(100),
            Self::Exactly(weight) => u64::from(weight),
            Self::Plus(change) => {
                u64::try_from(i64::from(configured) + i64::from(change)).unwrap_or(0)
            }
        };
        weight.min(u64::from(MAX_WEIGHT)) as u32
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn weights_stay_within_bounds() {
        assert_eq!(AgentWeight::Percent(75).apply(2), 2);
        assert_eq!(AgentWeight::Percent(1).apply(3), 1);
        assert_eq!(AgentWeight::Percent(0).apply(3), 0);
        assert_eq!(AgentWeight::Percent(u32::MAX).apply(MAX_WEIGHT), MAX_WEIGHT);
        assert_eq!(AgentWeight::Exactly(u32::MAX).apply(1), MAX_WEIGHT);
        assert_eq!(AgentWeight::Plus(-9).apply(3), 0);
        assert_eq!(AgentWeight::Plus(i32::MAX).apply(3), MAX_WEIGHT);
        assert_eq!(AgentWeight::Exactly(9).apply(0), 0, "the operator's 0 stays");
    }

    #[test]
    fn newer_fields_replace_older_ones() {
        let first =
            AgentOverride { weight: Some(AgentWeight::Percent(50)), ..AgentOverride::default() };
        let then = AgentOverride { max_connections: Some(30), ..AgentOverride::default() };
        let both = first.updated_with(then);
        assert_eq!((both.weight, both.max_connections), (first.weight, Some(30)));
    }
}
