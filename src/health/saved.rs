//! The knowledge of a monitor about one set, in a form that survives a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outlier::SavedEjection;
use super::verdict::CheckVerdict;
use crate::backend::SavedBackend;

/// The knowledge about one watched set: health and its reasons, agent overrides, slow starts, outcome
/// counts, ejections, and the progress of each check towards a change. Times are durations, so that
/// they mean the same in another process.
///
/// [`WatchHandle::export`](super::WatchHandle::export) returns it; any serde format can hold it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SavedHealth {
    pub(super) backends: Vec<SavedBackend>,
    /// By backend and check, in the order of the plan.
    pub(super) verdicts: Vec<SavedMemberVerdicts>,
    /// By the name of the backend.
    #[serde(default)]
    pub(super) ejections: Vec<(String, SavedEjection)>,
}

impl SavedHealth {
    /// Tells whether every check of this many backends has had a first result.
    #[cfg(feature = "director")]
    pub(crate) fn has_all_verdicts(&self, backends: usize) -> bool {
        let mut checks = self.verdicts.iter().flat_map(|member| &member.checks);
        self.verdicts.len() >= backends && checks.all(|check| check.verdict.health().is_some())
    }

    /// Adds time that has passed since the export to the age of each result.
    #[must_use]
    pub fn aged_by(mut self, time: Duration) -> Self {
        let checks = self.verdicts.iter_mut().flat_map(|member| &mut member.checks);
        for age in checks.filter_map(|check| check.age.as_mut()) {
            *age = age.saturating_add(time);
        }
        self
    }

    /// Removes the age of each result, for a comparison.
    #[cfg(feature = "director")]
    pub(crate) fn without_ages(mut self) -> Self {
        let checks = self.verdicts.iter_mut().flat_map(|member| &mut member.checks);
        checks.for_each(|check| check.age = None);
        self
    }

    /// Removes the outcome counts, for a process that has counts of its own.
    #[must_use]
    pub fn without_outcomes(mut self) -> Self {
        for backend in &mut self.backends {
            backend.outcomes = Default::default();
        }
        self
    }
}

/// The verdicts of the checks of one backend.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SavedMemberVerdicts {
    pub(super) id: String,
    pub(super) checks: Vec<SavedCheckVerdict>,
}

/// The verdict of one check.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SavedCheckVerdict {
    /// The name of the check: a different check at the same position does not restore the verdict.
    pub(super) check: String,
    pub(super) verdict: CheckVerdict,
    pub(super) reason: String,
    /// How long ago the check had its last result.
    #[serde(default)]
    pub(super) age: Option<Duration>,
}
