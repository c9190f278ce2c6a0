//! The members that an ejector tracks, their ejection states, and counts of both.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{EjectionPhase, EjectionReason};
use crate::backend::OutcomeCounts;

/// The record of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct EjectionEntry {
    /// Whether the member would take work if it were not ejected.
    available: bool,
    phase: EjectionPhase,
    /// Ejections in a row, less one for each sweep in which the member was healthy.
    pub(super) multiplier: u32,
    /// Whether the member was ejected because connections to it failed, and for nothing else.
    pub(super) is_ejected_for_connects: bool,
    /// The outcome counters at the previous sweep.
    pub(super) last_outcomes: Option<OutcomeCounts>,
}

impl EjectionEntry {
    pub(super) fn phase(&self) -> EjectionPhase {
        self.phase
    }

    pub(super) fn is_available(&self) -> bool {
        self.available
    }

    fn is_ejected_or_on_trial(&self) -> bool {
        self.phase != EjectionPhase::NotEjected
    }
}

/// The entries by serial. They are ordered, so that the same calls make the same decisions in the
/// same order.
#[derive(Clone, Debug, Default)]
pub(super) struct EjectionTable {
    entries: BTreeMap<u64, EjectionEntry>,
    /// The ends of the ejections, with the serials of the members.
    expiries: BTreeSet<(Instant, u64)>,
    /// Members that would take work if they were not ejected.
    available_count: usize,
    /// The available members that are ejected or on trial.
    available_ejected_count: usize,
    /// Members on trial, available or not.
    on_trial_count: usize,
}

impl EjectionTable {
    pub(super) fn get(&self, serial: u64) -> Option<&EjectionEntry> {
        self.entries.get(&serial)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &EjectionEntry)> {
        self.entries.iter().map(|(&serial, entry)| (serial, entry))
    }

    pub(super) fn available_count(&self) -> usize {
        self.available_count
    }

    pub(super) fn available_ejected_count(&self) -> usize {
        self.available_ejected_count
    }

    pub(super) fn ejected_count(&self) -> usize {
        self.expiries.len()
    }

    pub(super) fn on_trial_count(&self) -> usize {
        self.on_trial_count
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|&(end, _)| end)
    }

    /// Returns the member whose ejection ended first, among those that ended by `now`.
    pub(super) fn next_expired(&self, now: Instant) -> Option<u64> {
        self.expiries.first().filter(|&&(end, _)| end <= now).map(|&(_, serial)| serial)
    }

    /// Adds a member if it is new, and sets whether it is available.
    pub(super) fn upsert(&mut self, serial: u64, available: bool) {
        let new = EjectionEntry {
            available: false,
            phase: EjectionPhase::NotEjected,
            multiplier: 0,
            is_ejected_for_connects: false,
            last_outcomes: None,
        };
        self.entries.entry(serial).or_insert(new);
        self.update_entry(serial, |entry| entry.available = available);
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<EjectionEntry> {
        let entry = *self.entries.get(&serial)?;
        // Take the member out of every count first.
        self.update_entry(serial, |entry| {
            entry.available = false;
            entry.phase = EjectionPhase::NotEjected;
        });
        self.entries.remove(&serial);
        Some(entry)
    }

    pub(super) fn set_phase(&mut self, serial: u64, phase: EjectionPhase) {
        self.update_entry(serial, |entry| entry.phase = phase);
    }

    /// Returns an entry for changes of the fields that no count depends on.
    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut EjectionEntry> {
        self.entries.get_mut(&serial)
    }

    /// Returns all serials, for loops that change the table.
    pub(super) fn serials(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    fn update_entry(&mut self, serial: u64, change: impl FnOnce(&mut EjectionEntry)) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        let before = *entry;
        change(entry);
        let after = *entry;
        if let EjectionPhase::Ejected { until, .. } = before.phase {
            self.expiries.remove(&(until, serial));
        }
        if let EjectionPhase::Ejected { until, .. } = after.phase {
            self.expiries.insert((until, serial));
        }
        let update = |total: &mut usize, counts: fn(&EjectionEntry) -> bool| {
            *total = *total + usize::from(counts(&after)) - usize::from(counts(&before));
        };
        update(&mut self.available_count, |entry| entry.available);
        update(&mut self.available_ejected_count, |entry| {
            entry.available && entry.is_ejected_or_on_trial()
        });
        update(&mut self.on_trial_count, |entry| {
            matches!(entry.phase, EjectionPhase::OnTrial { .. })
        });
    }

    /// Returns the reason why a member is ejected or on trial.
    pub(super) fn reason(&self, serial: u64) -> Option<EjectionReason> {
        match self.get(serial)?.phase {
            EjectionPhase::NotEjected => None,
            EjectionPhase::Ejected { reason, .. } | EjectionPhase::OnTrial { reason } => {
                Some(reason)
            }
        }
    }
}
