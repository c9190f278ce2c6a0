//! The verdict of a check: up or down, by the counts `rise` and `fall`.

use serde::{Deserialize, Serialize};

use super::plan::{CheckTiming, InitialHealth};
use crate::backend::Health;

/// The health that the results of one probe add up to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct CheckVerdict {
    /// `None`: nothing is known, and the member keeps its health.
    health: Option<Health>,
    /// Results in a row that contradict `health`; without a result, failures to run in a row.
    opposing_streak: u32,
    /// Whether `health` does not come from a result: it is the initial health, or the check cannot run.
    #[serde(default)]
    is_provisional: bool,
}

impl CheckVerdict {
    /// Returns the verdict before the first result.
    pub(super) fn initial(init: InitialHealth) -> Self {
        match init {
            InitialHealth::Up => Self::default(),
            _ => Self { health: Some(init.health()), opposing_streak: 0, is_provisional: true },
        }
    }

    pub(super) fn health(self) -> Option<Health> {
        self.health
    }

    /// Returns whether a check has had a result.
    pub(super) fn has_result(self) -> bool {
        self.health.is_some() && !self.is_provisional
    }

    /// Returns whether the latest result contradicts the health.
    pub(super) fn is_changing(self) -> bool {
        self.opposing_streak > 0
    }

    /// Counts a result, and returns whether the health or its reason has changed.
    pub(super) fn record_result(&mut self, ok: bool, timing: &CheckTiming) -> bool {
        let result = if ok { Health::Up } else { Health::Down };
        let is_first = !self.has_result();
        if is_first {
            *self = Self { health: self.health, ..Self::default() };
        }
        let known = self.health.filter(|_| !is_first || !timing.init.first_result_decides());
        let Some(health) = known else {
            self.health = Some(result);
            return true;
        };
        if result == health {
            self.opposing_streak = 0;
            return is_first;
        }
        self.opposing_streak += 1;
        let needed = if ok { timing.rise } else { timing.fall };
        let changed = self.opposing_streak >= needed;
        if changed {
            *self = Self { health: Some(result), ..Self::default() };
        }
        changed
    }

    /// Records a check that says nothing of the health; returns whether it changes. Before the first
    /// result the check has nothing against the member.
    pub(super) fn record_no_opinion(&mut self) -> bool {
        if self.has_result() {
            return false;
        }
        let is_new = self.health != Some(Health::Up);
        *self = Self { health: Some(Health::Up), opposing_streak: 0, is_provisional: true };
        is_new
    }

    /// Counts that the check could not run, which matters only before the first result; returns whether
    /// it takes the member down.
    pub(super) fn record_failure_to_run(&mut self, timing: &CheckTiming) -> bool {
        if self.has_result() || self.health == Some(Health::Down) {
            return false;
        }
        self.is_provisional = true;
        self.opposing_streak += 1;
        let is_down = self.opposing_streak >= timing.fall;
        if is_down {
            *self = Self { health: Some(Health::Down), opposing_streak: 0, is_provisional: true };
        }
        is_down
    }
}
