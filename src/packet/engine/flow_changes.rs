//! What the engine of another machine is to be told of flows.

use std::collections::VecDeque;

use crate::packet::layout::RawTuple;

/// The changes since another engine was told last.
#[derive(Debug, Default)]
pub(super) struct FlowChanges {
    /// Whether there is one that is told.
    is_read: bool,
    /// Flows that have begun, or were answered, at a time, and may be too young to be told of.
    young: VecDeque<(u64, RawTuple)>,
    /// Flows that another engine knows of and that have ended, with the number of the server.
    ended: Vec<(RawTuple, u32)>,
    /// Whether there were more than there is room for since this was read last.
    has_lost: bool,
}

/// The changes that wait.
const ROOM: usize = 1 << 20;

impl FlowChanges {
    /// Says whether the changes are read. While they are not, nothing is kept.
    pub(super) fn set_read(&mut self, is_read: bool) {
        if self.is_read && !is_read {
            *self = Self::default();
        }
        self.is_read = is_read;
    }

    /// Adds a flow that is to be looked at when it is older.
    pub(super) fn add_young(&mut self, tuple: RawTuple, at: u64) {
        if self.is_read && self.has_room(self.young.len()) {
            self.young.push_back((at, tuple));
        }
    }

    pub(super) fn add_ended(&mut self, tuple: RawTuple, server: u32) {
        if self.is_read && self.has_room(self.ended.len()) {
            self.ended.push((tuple, server));
        }
    }

    fn has_room(&mut self, len: usize) -> bool {
        self.has_lost |= len >= ROOM;
        len < ROOM
    }

    /// Returns a flow that was added up to a time.
    pub(super) fn next_young(&mut self, until: u64) -> Option<RawTuple> {
        let tuple = self.young.front().filter(|(at, _)| *at <= until)?.1;
        self.young.pop_front();
        Some(tuple)
    }

    /// Returns the flows that have ended, each with the number of its server.
    pub(super) fn read_ended(&mut self) -> Vec<(RawTuple, u32)> {
        std::mem::take(&mut self.ended)
    }

    /// Returns whether changes were left out since the last call.
    pub(super) const fn read_lost(&mut self) -> bool {
        std::mem::replace(&mut self.has_lost, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_read_when_they_are_old_enough_and_somebody_reads() {
        let mut changes = FlowChanges::default();
        let tuple = RawTuple { protocol: 6, ..RawTuple::default() };
        changes.add_young(tuple, 1);
        changes.set_read(true);
        assert_eq!(changes.next_young(u64::MAX), None, "nobody read when it was added");
        changes.add_young(tuple, 2);
        changes.add_ended(tuple, 7);
        assert_eq!((changes.next_young(1), changes.next_young(2)), (None, Some(tuple)));
        assert_eq!(changes.next_young(2), None);
        assert_eq!((changes.read_ended(), changes.read_ended()), (vec![(tuple, 7)], vec![]));
        changes.add_young(tuple, 3);
        changes.set_read(false);
        changes.set_read(true);
        assert_eq!(changes.next_young(3), None, "the next reader begins with all flows");
    }

    #[test]
    fn what_has_no_room_is_told_once() {
        let mut changes = FlowChanges::default();
        changes.set_read(true);
        for at in 0..=ROOM as u64 {
            changes.add_young(RawTuple::default(), at);
        }
        assert!(changes.read_lost() && !changes.read_lost());
    }
}
