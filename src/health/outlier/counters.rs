//! What an ejector has decided so far.

use super::{Cause, CauseKind};

/// What an [`Ejector`](super::Ejector) has decided so far.
///
/// Everybody who was put out is in exactly one place:
/// `put_out() + restored = returned + forgotten + out + on_trial`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct EjectionCounters {
    pub(super) ejected: PerCause,
    pub(super) refused: PerCause,
    /// Trials that were offered.
    pub trials: u64,
    /// Members that came back: by a trial, a check or the operator.
    pub returned: u64,
    /// Members that were forgotten, or left the set, while they were out or on trial.
    pub forgotten: u64,
    /// Members whose ejection or trial was imported.
    pub restored: u64,
    /// Members that are out now.
    pub out: u64,
    /// Members that are on trial now.
    pub on_trial: u64,
}

impl EjectionCounters {
    /// Ejections for one kind of cause. Those for [`CauseKind::TrialFailed`] are of members that
    /// were out before.
    #[must_use]
    pub const fn ejected(&self, kind: CauseKind) -> u64 {
        self.ejected.of(kind)
    }

    /// Ejections that were due for one kind of cause, and not made because
    /// [as many as may be](super::Ejection::max_ejected_percent) were out already.
    #[must_use]
    pub const fn refused(&self, kind: CauseKind) -> u64 {
        self.refused.of(kind)
    }

    /// Ejections of members that were in until then.
    #[must_use]
    pub fn put_out(&self) -> u64 {
        let kinds = CauseKind::ALL.into_iter().filter(|&kind| kind != CauseKind::TrialFailed);
        kinds.map(|kind| self.ejected(kind)).sum()
    }
}

/// A count for each kind of cause.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct PerCause([u64; CauseKind::ALL.len()]);

impl PerCause {
    pub(super) fn count(&mut self, cause: Cause) {
        self.0[cause.kind() as usize] += 1;
    }

    const fn of(&self, kind: CauseKind) -> u64 {
        self.0[kind as usize]
    }
}
