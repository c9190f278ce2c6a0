//! The members an ejector knows, how each stands, and how many stand how.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{Cause, Phase};
use crate::backend::Outcomes;

/// What is kept of one member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Whether it would take work, were it not ejected.
    serves: bool,
    phase: Phase,
    /// Ejections in a row, less one for each healthy sweep.
    pub(super) multiplier: u32,
    /// The counters at the last sweep.
    pub(super) seen: Option<Outcomes>,
}

impl Entry {
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn serves(&self) -> bool {
        self.serves
    }

    fn is_out(&self) -> bool {
        self.phase != Phase::In
    }
}

/// Entries by serial; in order, so that the same calls make the same decisions in the same order.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<u64, Entry>,
    /// When whose ejection ends.
    ends: BTreeSet<(Instant, u64)>,
    /// Members that would take work, were they not ejected.
    serving: usize,
    /// Those of them that are out or on trial.
    serving_out: usize,
    /// All members on trial.
    on_trial: usize,
}

impl Table {
    pub(super) fn get(&self, serial: u64) -> Option<&Entry> {
        self.entries.get(&serial)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(&serial, entry)| (serial, entry))
    }

    pub(super) fn serving(&self) -> usize {
        self.serving
    }

    pub(super) fn serving_out(&self) -> usize {
        self.serving_out
    }

    pub(super) fn out(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn on_trial(&self) -> usize {
        self.on_trial
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|&(end, _)| end)
    }

    /// Somebody whose ejection has ended by now.
    pub(super) fn ended(&self, now: Instant) -> Option<u64> {
        self.ends.first().filter(|&&(end, _)| end <= now).map(|&(_, serial)| serial)
    }

    /// Knows a member from now on, and whether it would take work.
    pub(super) fn put(&mut self, serial: u64, serves: bool) {
        let new = Entry { serves: false, phase: Phase::In, multiplier: 0, seen: None };
        self.entries.entry(serial).or_insert(new);
        self.edit(serial, |entry| entry.serves = serves);
    }

    pub(super) fn remove(&mut self, serial: u64) -> Option<Entry> {
        let entry = *self.entries.get(&serial)?;
        // Leaves every count before it leaves the table.
        self.edit(serial, |entry| {
            entry.serves = false;
            entry.phase = Phase::In;
        });
        self.entries.remove(&serial);
        Some(entry)
    }

    pub(super) fn set_phase(&mut self, serial: u64, phase: Phase) {
        self.edit(serial, |entry| entry.phase = phase);
    }

    /// For what no count depends on.
    pub(super) fn get_mut(&mut self, serial: u64) -> Option<&mut Entry> {
        self.entries.get_mut(&serial)
    }

    /// Everybody, for walks that change the table.
    pub(super) fn serials(&self) -> Vec<u64> {
        self.entries.keys().copied().collect()
    }

    fn edit(&mut self, serial: u64, change: impl FnOnce(&mut Entry)) {
        let Some(entry) = self.entries.get_mut(&serial) else { return };
        let before = *entry;
        change(entry);
        let after = *entry;
        if let Phase::Out { until, .. } = before.phase {
            self.ends.remove(&(until, serial));
        }
        if let Phase::Out { until, .. } = after.phase {
            self.ends.insert((until, serial));
        }
        let count = |total: &mut usize, of: fn(&Entry) -> bool| {
            *total = *total + usize::from(of(&after)) - usize::from(of(&before));
        };
        count(&mut self.serving, |it| it.serves);
        count(&mut self.serving_out, |it| it.serves && it.is_out());
        count(&mut self.on_trial, |it| matches!(it.phase, Phase::Trial { .. }));
    }

    /// Why it is out or on trial.
    pub(super) fn cause(&self, serial: u64) -> Option<Cause> {
        match self.get(serial)?.phase {
            Phase::In => None,
            Phase::Out { why, .. } | Phase::Trial { why } => Some(why),
        }
    }
}
