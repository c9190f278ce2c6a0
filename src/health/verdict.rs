//! The verdict of a check: up or down, by the counts `rise` and `fall`.

use serde::{Deserialize, Serialize};

use super::plan::CheckTiming;
use crate::backend::Health;

/// The health that the results of one probe add up to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct CheckVerdict {
    /// `None` until the first result.
    health: Option<Health>,
    /// Results in a row that contradict `health`.
    opposing_streak: u32,
}

impl CheckVerdict {
    pub(super) fn health(self) -> Option<Health> {
        self.health
    }

    /// Returns whether the latest result contradicts the health.
    pub(super) fn is_changing(self) -> bool {
        self.opposing_streak > 0
    }

    /// Counts a result, and returns whether the health has changed.
    pub(super) fn record_result(&mut self, ok: bool, timing: &CheckTiming) -> bool {
        let result = if ok { Health::Up } else { Health::Down };
        let Some(health) = self.health else {
            // Nothing is known before the first result, so it decides alone.
            self.health = Some(result);
            return true;
        };
        if result == health {
            self.opposing_streak = 0;
            return false;
        }
        self.opposing_streak += 1;
        let needed = if ok { timing.rise } else { timing.fall };
        let changed = self.opposing_streak >= needed;
        if changed {
            *self = Self { health: Some(result), opposing_streak: 0 };
        }
        changed
    }
}
