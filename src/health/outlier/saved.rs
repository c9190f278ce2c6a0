//! An ejection that outlives the program.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::EjectionReason;

/// How one member stands, without moments that mean nothing to another process.
///
/// What [`Ejector::export`](super::Ejector::export) gives and
/// [`Ejector::import`](super::Ejector::import) takes. Kept under the backend's name by whoever
/// writes it down: serials are new after a restart.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SavedEjection {
    /// Ejections in a row, less one for each healthy sweep since.
    pub multiplier: u32,
    /// Whether it is in, out or on trial.
    pub phase: SavedEjectionPhase,
}

/// The phase of a [`SavedEjection`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum SavedEjectionPhase {
    /// Takes part.
    NotEjected,
    /// Takes no work.
    Ejected {
        /// Until its trial.
        remaining: Duration,
        /// What it was ejected for.
        why: EjectionReason,
    },
    /// Is given one piece of work.
    OnTrial {
        /// What it was ejected for.
        why: EjectionReason,
    },
}

impl SavedEjection {
    /// What it is some time later: for the time between the export and the import, where that is
    /// known.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        let phase = match self.phase {
            SavedEjectionPhase::Ejected { remaining, why } => {
                SavedEjectionPhase::Ejected { remaining: remaining.saturating_sub(elapsed), why }
            }
            phase => phase,
        };
        Self { phase, ..self }
    }
}
