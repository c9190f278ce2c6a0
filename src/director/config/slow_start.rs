//! The `slow_start` table.

use serde::Deserialize;

use super::value::{HumanDuration, apply_if_some};
use crate::backend::SlowStart;

/// Slow start: the share of a server that has come up grows over a time window.
///
/// After the time `t` the server has the share `(t / window) ^ (1 / aggression)` of its weight, and
/// at least `min_percent`. Schedulers that hash ignore it, and so do `ovf`, `lblc` and `lblcr`.
/// Servers that are new together with their service start at their full weight.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowStartConfig {
    /// The time after which a server has its full share.
    window: HumanDuration,
    /// The shape of the growth: `1.0` is a straight line, more gives a larger share early on. A
    /// value that is not above 0 means `1.0`. Default: `1.0`.
    aggression: Option<f64>,
    /// The minimum share, in percent of the weight, from 1 to 100; a value outside of the range
    /// means the nearest bound. Default: `10`.
    min_percent: Option<u8>,
}

impl SlowStartConfig {
    pub(crate) fn to_slow_start(&self) -> SlowStart {
        let slow_start = SlowStart::new(self.window.0);
        let slow_start = apply_if_some(slow_start, self.aggression, SlowStart::aggression);
        apply_if_some(slow_start, self.min_percent, SlowStart::min_percent)
    }
}
