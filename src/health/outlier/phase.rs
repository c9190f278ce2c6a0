//! The ejection state of a member.

use std::time::Instant;

use super::EjectionReason;

/// Whether a member is ejected, on trial or neither.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EjectionPhase {
    /// The member takes work.
    NotEjected,
    /// The member takes no new work.
    Ejected {
        /// When the trial of the member starts.
        until: Instant,
        /// The reason for the ejection.
        reason: EjectionReason,
    },
    /// The member gets one lease, whose outcome ends the trial.
    OnTrial {
        /// The reason for the ejection before the trial.
        reason: EjectionReason,
    },
}

/// The ejection state of a member, as its [`Ejector`](super::Ejector) knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EjectionState {
    /// Whether the member is ejected, on trial or neither.
    pub phase: EjectionPhase,
    /// The multiplier of the base ejection time: ejections in a row, less one for each sweep since in
    /// which the member was healthy.
    pub multiplier: u32,
}
