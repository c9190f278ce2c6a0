//! What a checker says of a backend beside up and down.

use super::{BackendAdminState, MAX_WEIGHT};

/// What a backend asks for through a checker: another weight, a limit, to be drained.
///
/// It changes nothing that is configured: the operator's weight, limits and state stay what they
/// are, and this is laid over them. A field that is `None` was not spoken of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
pub struct AgentOverride {
    /// The weight to use.
    pub weight: Option<AgentWeight>,
    /// The most connections it wants, 0 for no limit.
    pub max_connections: Option<u32>,
    /// What it wants to be: the stronger of this and the operator's word holds.
    pub admin: Option<BackendAdminState>,
}

impl AgentOverride {
    /// What holds when more was said: newer words take the place of older ones about the same.
    #[must_use]
    pub fn updated_with(self, newer: Self) -> Self {
        Self {
            weight: newer.weight.or(self.weight),
            max_connections: newer.max_connections.or(self.max_connections),
            admin: newer.admin.or(self.admin),
        }
    }
}

/// How a checker changes a weight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "health", derive(serde::Deserialize, serde::Serialize))]
pub enum AgentWeight {
    /// This much of the configured weight, rounded up; 100 is all of it.
    Percent(u32),
    /// This weight, whatever is configured.
    Exactly(u32),
    /// The configured weight and this.
    Plus(i32),
}

impl AgentWeight {
    /// The weight that follows; between 0 and [`MAX_WEIGHT`], and 0 for a configured weight of 0:
    /// who was quiesced by the operator stays so.
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
        assert_eq!(AgentWeight::Exactly(9).apply(0), 0, "the operator's 0 stands");
    }

    #[test]
    fn newer_words_replace_what_they_speak_of() {
        let first =
            AgentOverride { weight: Some(AgentWeight::Percent(50)), ..AgentOverride::default() };
        let then = AgentOverride { max_connections: Some(30), ..AgentOverride::default() };
        let both = first.updated_with(then);
        assert_eq!((both.weight, both.max_connections), (first.weight, Some(30)));
    }
}
