//! How many servers must be healthy.

use std::fmt;

use serde::Deserialize;

use super::value::apply_if_some;
use crate::backend::{FailMode, Quorum};

/// What happens when too few servers are healthy: `"closed"`, `"open"`, or a percentage below which
/// all are used.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct FailModeConfig(pub(crate) FailMode);

impl<'de> Deserialize<'de> for FailModeConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FailModeVisitor;
        impl serde::de::Visitor<'_> for FailModeVisitor {
            type Value = FailModeConfig;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"closed\", \"open\", or a percentage")
            }

            fn visit_i64<E: serde::de::Error>(self, percent: i64) -> Result<FailModeConfig, E> {
                let wrong = || E::custom(format!("{percent} is no percentage from 1 to 100"));
                let percent = u8::try_from(percent).ok().filter(|it| (1..=100).contains(it));
                percent.map(|it| FailModeConfig(FailMode::PanicBelow(it))).ok_or_else(wrong)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FailModeConfig, E> {
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

/// The weight that must be healthy for the service to count as up.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuorumConfig {
    weight: u64,
    hysteresis: Option<u64>,
    #[serde(default)]
    advisory: bool,
}

impl QuorumConfig {
    pub(crate) fn to_quorum(self) -> Quorum {
        let it = apply_if_some(Quorum::new(self.weight), self.hysteresis, Quorum::hysteresis);
        if self.advisory { it.advisory() } else { it }
    }
}
