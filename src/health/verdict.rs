//! From answers to a verdict: rise and fall.

use serde::{Deserialize, Serialize};

use super::plan::CheckTiming;
use crate::backend::Health;

/// What one probe's answers come to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct CheckVerdict {
    /// `None` until there was an answer.
    health: Option<Health>,
    /// Answers in a row that speak against it.
    opposing_streak: u32,
}

impl CheckVerdict {
    pub(super) fn health(self) -> Option<Health> {
        self.health
    }

    /// Tells whether it is about to change.
    pub(super) fn is_changing(self) -> bool {
        self.opposing_streak > 0
    }

    /// Takes an answer; `true` if the verdict is another one now.
    pub(super) fn record_result(&mut self, ok: bool, timing: &CheckTiming) -> bool {
        let answer = if ok { Health::Up } else { Health::Down };
        let Some(health) = self.health else {
            // Before the first answer nothing is known: whatever it says is better.
            self.health = Some(answer);
            return true;
        };
        if answer == health {
            self.opposing_streak = 0;
            return false;
        }
        self.opposing_streak += 1;
        let needed = if ok { timing.rise } else { timing.fall };
        let changed = self.opposing_streak >= needed;
        if changed {
            *self = Self { health: Some(answer), opposing_streak: 0 };
        }
        changed
    }
}
