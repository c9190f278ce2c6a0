//! Decisions of an ejector about a member.

use std::time::Instant;

use super::EjectionReason;

/// A decision about one member, which the caller applies to the set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[must_use = "the ejector assumes that each decision is applied to the set"]
pub struct EjectionDecision {
    /// The serial of the member.
    pub serial: u64,
    /// The change to apply.
    pub action: EjectionAction,
}

/// The change that an [`EjectionDecision`] asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EjectionAction {
    /// Give the member no new work.
    Eject {
        /// When the trial of the member starts.
        until: Instant,
        /// The reason for the ejection.
        reason: EjectionReason,
    },
    /// Give the member one lease, and report
    /// [how it ended](super::Ejector::handle_trial_end).
    StartTrial,
    /// Give the member work again, with the [ramp](crate::health::EjectionPolicy::ramp) of the policy.
    Return,
}
