//! The members an ejector knows, how each stands, and how many stand how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{EjectionPhase, EjectionReason};
use crate::backend::OutcomeCounts;

/// What is kept of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct EjectionEntry {
    /// Whether it would take work, were it not ejected.
    available: bool,
    phase: EjectionPhase,
    /// Ejections in a row, less one for each healthy sweep.
    pub(super) multiplier: u32,
    /// The counters at the last sweep.
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

/// Entries by serial; in order, so that the same calls make the same decisions in the same order.
#[derive(Clone, Debug, Default)]
pub(super) struct EjectionTable {
    entries: BTreeMap<u64, EjectionEntry>,
    /// When whose ejection ends.
    expiries: BTreeSet<(Instant, u64)>,
    /// Members that would take work, were they not ejected.
    available_count: usize,
    /// Those of them that are out or on trial.
    available_ejected_count: usize,
    /// All members on trial.
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

    /// Somebody whose ejection has ended by now.
    pub(super) fn next_expired(&self, now: Instant) -> Option<u64> {
        self.expiries.first().filter(|&&(end, _)| end <= now).map(|&(_, serial)| serial)
    }

    /// Knows a member from now on, and whether it would take work.
    pub(super) fn upsert(&mut self, serial: u64, serves: bool) {
        let new = EjectionEntry {
            available: false,
            phase: EjectionPhase::NotEjected,
            multiplier: 0,
            last_outcomes: None,
        };
        self.entries.entry(serial).or_insert(new);
        self.update_entry(serial, |entry| entry.available = serves);
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<EjectionEntry> {
        let entry = *self.entries.get(&serial)?;
        // Leaves every count before it leaves the table.
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

    /// For what no count depends on.
    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut EjectionEntry> {
        self.entries.get_mut(&serial)
    }

    /// Everybody, for walks that change the table.
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
        let count = |total: &mut usize, of: fn(&EjectionEntry) -> bool| {
            *total = *total + usize::from(of(&after)) - usize::from(of(&before));
        };
        count(&mut self.available_count, |it| it.available);
        count(&mut self.available_ejected_count, |it| it.available && it.is_ejected_or_on_trial());
        count(&mut self.on_trial_count, |it| matches!(it.phase, EjectionPhase::OnTrial { .. }));
    }

    /// Why it is out or on trial.
    pub(super) fn reason(&self, serial: u64) -> Option<EjectionReason> {
        match self.get(serial)?.phase {
            EjectionPhase::NotEjected => None,
            EjectionPhase::Ejected { why, .. } | EjectionPhase::OnTrial { why } => Some(why),
        }
    }
}
