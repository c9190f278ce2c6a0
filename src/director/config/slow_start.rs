//! The `slow_start` table.

use std::time::Duration;

use serde::Deserialize;

use super::table::config_table;
use super::value::HumanDuration;
use crate::backend::SlowStart;
use crate::setting::SettingError;

config_table! {
/// A builder of a [`SlowStartConfig`].
builder SlowStartConfigBuilder;

/// Slow start: the share of a server that has come up grows over a time window.
///
/// After the time `t` the server has the share `(t / window) ^ (1 / aggression)` of its weight, and
/// at least `min_percent`. Schedulers that hash ignore it, and so do `ovf`, `lblc` and `lblcr`.
/// Servers that are new together with their service start at their full weight.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct SlowStartConfig {
    /// The time after which a server has its full share.
    window: HumanDuration,
    /// The shape of the growth: `1.0` is a straight line, more gives a larger share early on.
    /// Range: above 0. Default: `1.0`.
    aggression: Option<f64>,
    /// The minimum share, in percent of the weight, from 1 to 100. Default: `10`.
    min_percent: Option<u8>,
}
}

impl SlowStartConfig {
    /// Returns a builder of a slow start over this time.
    pub fn builder(window: Duration) -> SlowStartConfigBuilder {
        let window = HumanDuration(window);
        SlowStartConfigBuilder { table: Self { window, aggression: None, min_percent: None } }
    }

    pub(crate) fn to_slow_start(&self) -> Result<SlowStart, SettingError> {
        let mut slow_start = SlowStart::new(self.window.0);
        if let Some(aggression) = self.aggression {
            slow_start = slow_start.with_aggression(aggression)?;
        }
        if let Some(min_percent) = self.min_percent {
            slow_start = slow_start.with_min_percent(min_percent)?;
        }
        Ok(slow_start)
    }
}
