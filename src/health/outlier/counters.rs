//! Counters of an ejector's decisions.

use super::{EjectionReason, EjectionReasonKind};

/// The decisions that an [`Ejector`](super::Ejector) has made so far.
///
/// Every member that was ejected is counted in exactly one place:
/// `new_ejections() + imported = returned + forgotten + currently_ejected + currently_on_trial`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct EjectionCounters {
    pub(super) ejected: ReasonCounts,
    pub(super) refused: ReasonCounts,
    /// Trials started.
    pub trials: u64,
    /// Members that returned: by a trial, a check or the operator.
    pub returned: u64,
    /// Members that were forgotten, or left the set, while they were ejected or on trial.
    pub forgotten: u64,
    /// Members whose ejection or trial was imported.
    pub imported: u64,
    /// Members that are ejected now.
    pub currently_ejected: u64,
    /// Members that are on trial now.
    pub currently_on_trial: u64,
}

impl EjectionCounters {
    /// Returns the number of ejections for one kind of reason. Those for
    /// [`EjectionReasonKind::TrialFailed`] are of members that were on trial.
    #[must_use]
    pub const fn ejected(&self, kind: EjectionReasonKind) -> u64 {
        self.ejected.get(kind)
    }

    /// Returns the number of ejections for one kind of reason that were due but refused by the limit
    /// on [ejected members](crate::health::EjectionPolicyBuilder::max_ejected_percent).
    #[must_use]
    pub const fn refused(&self, kind: EjectionReasonKind) -> u64 {
        self.refused.get(kind)
    }

    /// Returns the number of ejections of members that were neither ejected nor on trial before.
    #[must_use]
    pub fn new_ejections(&self) -> u64 {
        let kinds = EjectionReasonKind::ALL
            .into_iter()
            .filter(|&kind| kind != EjectionReasonKind::TrialFailed);
        kinds.map(|kind| self.ejected(kind)).sum()
    }
}

/// One count for each kind of reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct ReasonCounts([u64; EjectionReasonKind::ALL.len()]);

/// As a map from the reason's kind.
impl serde::Serialize for ReasonCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(EjectionReasonKind::ALL.map(|kind| (kind, self.get(kind))))
    }
}

impl ReasonCounts {
    pub(super) fn increment(&mut self, reason: EjectionReason) {
        self.0[reason.kind() as usize] += 1;
    }

    const fn get(&self, kind: EjectionReasonKind) -> u64 {
        self.0[kind as usize]
    }
}
