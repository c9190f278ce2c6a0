//! The ejection state of a member, in a form that survives a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EjectionReason;

/// The ejection state of one member, with durations in place of instants.
///
/// [`Ejector::export`](super::Ejector::export) returns it and
/// [`Ejector::import`](super::Ejector::import) takes it. Store it under the backend's name: serials
/// are new after a restart.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SavedEjection {
    /// Ejections in a row, less one for each sweep since in which the member was healthy.
    pub multiplier: u32,
    /// Whether the member is ejected, on trial or neither.
    pub phase: SavedEjectionPhase,
    /// Whether the member was ejected because connections to it failed, and for nothing else.
    #[serde(default)]
    pub for_connects: bool,
}

/// The phase of a [`SavedEjection`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SavedEjectionPhase {
    /// The member takes work.
    NotEjected,
    /// The member takes no new work.
    Ejected {
        /// The time until its trial starts.
        remaining: Duration,
        /// The reason for the ejection.
        reason: EjectionReason,
    },
    /// The member gets one lease, whose outcome ends the trial.
    OnTrial {
        /// The reason for the ejection before the trial.
        reason: EjectionReason,
    },
}

impl SavedEjection {
    /// Returns the state some time later: call it with the time between export and import, if that
    /// is known.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        let phase = match self.phase {
            SavedEjectionPhase::Ejected { remaining, reason } => {
                SavedEjectionPhase::Ejected { remaining: remaining.saturating_sub(elapsed), reason }
            }
            phase => phase,
        };
        Self { phase, ..self }
    }
}
