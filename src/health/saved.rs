//! What a monitor keeps over a restart.

use serde::{Deserialize, Serialize};

use super::outlier::SavedEjection;
use super::verdict::CheckVerdict;
use crate::backend::SavedBackend;

/// What is known of one watched set: health and why, advice, slow starts, counts, ejections, and how far each
/// check has come. Times are durations, so that they mean the same in another process.
///
/// From [`Watch::export`](super::Watch::export); any serde format will do.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SavedHealth {
    pub(super) backends: Vec<SavedBackend>,
    /// By backend and check, in the order of the plan.
    pub(super) verdicts: Vec<SavedMemberVerdicts>,
    /// By backend.
    #[serde(default)]
    pub(super) ejections: Vec<(String, SavedEjection)>,
}

impl SavedHealth {
    /// The same without counts of how leases ended: for who has counts of its own.
    #[must_use]
    pub fn without_outcomes(mut self) -> Self {
        for backend in &mut self.backends {
            backend.outcomes = Default::default();
        }
        self
    }
}

/// What the checks of one backend have come to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SavedMemberVerdicts {
    pub(super) id: String,
    pub(super) checks: Vec<SavedCheckVerdict>,
}

/// What one check has come to.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct SavedCheckVerdict {
    /// The check's name: another check in its place takes up nothing.
    pub(super) check: String,
    pub(super) verdict: CheckVerdict,
    pub(super) reason: String,
}
