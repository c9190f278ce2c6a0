//! The report of a drain: how many connections or flows ended by themselves, and how many were cut.

use std::ops::AddAssign;

/// Counts the connections that were open when a forwarder began to drain, by how they ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// Connections that ended by themselves, in whatever way, before the deadline.
    pub finished: u64,
    /// Connections that the forwarder cut at the deadline.
    pub cut: u64,
}

impl DrainReport {
    /// Counts a connection that has ended.
    pub(super) fn count_ended(&mut self, by_itself: bool) {
        match by_itself {
            true => self.finished += 1,
            false => self.cut += 1,
        }
    }
}

impl AddAssign for DrainReport {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.cut += other.cut;
    }
}
