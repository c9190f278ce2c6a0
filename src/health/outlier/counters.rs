//! What an ejector has decided so far.

use super::{EjectionReason, EjectionReasonKind};

/// What an [`Ejector`](super::Ejector) has decided so far.
///
/// Everybody who was put out is in exactly one place:
/// `put_out() + restored = returned + forgotten + out + on_trial`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EjectionCounters {
    pub(super) ejected: ReasonCounts,
    pub(super) refused: ReasonCounts,
    /// Trials that were offered.
    pub trials: u64,
    /// Members that came back: by a trial, a check or the operator.
    pub returned: u64,
    /// Members that were forgotten, or left the set, while they were out or on trial.
    pub forgotten: u64,
    /// Members whose ejection or trial was imported.
    pub imported: u64,
    /// Members that are out now.
    pub currently_ejected: u64,
    /// Members that are on trial now.
    pub currently_on_trial: u64,
}

impl EjectionCounters {
    /// Ejections for one kind of cause. Those for [`EjectionReasonKind::TrialFailed`] are of members that
    /// were out before.
    #[must_use]
    pub const fn ejected(&self, kind: EjectionReasonKind) -> u64 {
        self.ejected.get(kind)
    }

    /// Ejections that were due for one kind of cause, and not made because
    /// [as many as may be](super::Ejection::max_ejected_percent) were out already.
    #[must_use]
    pub const fn refused(&self, kind: EjectionReasonKind) -> u64 {
        self.refused.get(kind)
    }

    /// Ejections of members that were in until then.
    #[must_use]
    pub fn new_ejections(&self) -> u64 {
        let kinds = EjectionReasonKind::ALL
            .into_iter()
            .filter(|&kind| kind != EjectionReasonKind::TrialFailed);
        kinds.map(|kind| self.ejected(kind)).sum()
    }
}

/// A count for each kind of cause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ReasonCounts([u64; EjectionReasonKind::ALL.len()]);

impl ReasonCounts {
    pub(super) fn increment(&mut self, cause: EjectionReason) {
        self.0[cause.kind() as usize] += 1;
    }

    const fn get(&self, kind: EjectionReasonKind) -> u64 {
        self.0[kind as usize]
    }
}
