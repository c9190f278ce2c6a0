//! How many servers of a service must be healthy: `fail_mode` and the `quorum` table.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::ConfigProblem;
use super::table::config_table;
use crate::backend::{FailMode, Quorum, panic_percent_error};

/// `"closed"`, `"open"`, or a percentage.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct FailModeConfig(pub(crate) FailMode);

impl<'de> Deserialize<'de> for FailModeConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FailModeVisitor;
        impl Visitor<'_> for FailModeVisitor {
            type Value = FailModeConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"closed\", \"open\", or a percentage from 1 to 100")
            }

            fn visit_i64<E: Error>(self, percent: i64) -> Result<FailModeConfig, E> {
                // `validate` refuses what else is out of the range, and names the key.
                let below = u8::try_from(percent);
                let below = below.map_err(|_| E::custom(panic_percent_error(percent)))?;
                Ok(FailModeConfig(FailMode::PanicBelow(below)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<FailModeConfig, E> {
                match text {
                    "closed" => Ok(FailModeConfig(FailMode::Closed)),
                    "open" => Ok(FailModeConfig(FailMode::Open)),
                    _ => Err(E::unknown_variant(text, &["closed", "open"])),
                }
            }
        }
        deserializer.deserialize_any(FailModeVisitor)
    }
}

impl From<FailMode> for FailModeConfig {
    fn from(mode: FailMode) -> Self {
        Self(mode)
    }
}

impl FailModeConfig {
    pub(super) fn validate(self) -> Result<(), ConfigProblem> {
        self.0.validate().map_err(|error| ConfigProblem::of_setting(error, &[]))
    }
}

config_table! {
/// A builder of a [`QuorumConfig`].
builder QuorumConfigBuilder;

/// The quorum: the total weight of healthy servers that the service needs, as in keepalived.
///
/// A service without its quorum gives its servers no new connections: the sorry server takes them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct QuorumConfig {
    /// The total weight that is required.
    weight: u64,
    /// The quorum is lost below `weight - hysteresis` (and at a total of 0), and reached again at
    /// `weight + hysteresis`. Default: `0`.
    hysteresis: Option<u64>,
    /// Reports a lost quorum only; the servers go on. Default: `false`.
    #[serde(default)]
    advisory: bool,
}
}

impl QuorumConfig {
    /// Returns a builder of a quorum of this total weight.
    pub fn builder(weight: u64) -> QuorumConfigBuilder {
        QuorumConfigBuilder { table: Self { weight, hysteresis: None, advisory: false } }
    }

    pub(crate) fn to_quorum(self) -> Quorum {
        Quorum::new(self.weight)
            .with_hysteresis(self.hysteresis.unwrap_or_default())
            .with_advisory(self.advisory)
    }
}
