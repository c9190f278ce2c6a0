//! The growing share of a server that has come back.

use serde::Deserialize;

use super::value::{HumanDuration, apply_if_some};
use crate::backend::SlowStart;

/// How the share of a server grows that has come back.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowStartConfig {
    window: HumanDuration,
    aggression: Option<f64>,
    /// In percent.
    floor: Option<u8>,
}

impl SlowStartConfig {
    pub(crate) fn to_slow_start(&self) -> SlowStart {
        let it = SlowStart::new(self.window.0);
        let it = apply_if_some(it, self.aggression, SlowStart::aggression);
        apply_if_some(it, self.floor, SlowStart::min_percent)
    }
}
