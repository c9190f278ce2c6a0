//! A walk over all flows, in steps.

use std::collections::{BTreeMap, HashMap};

use super::flow::PacketFlow;
use crate::packet::layout::RawTuple;

/// Where a walk over all flows goes on. A flow that was there at the beginning, and still is when the walk comes by,
/// is found: flows are put off until later and never until earlier.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowWalk {
    /// The second in which flows are due, and the position among them.
    second: u64,
    position: usize,
}

impl FlowWalk {
    /// Returns the next flow; `None` at the end, or when `steps` has become 0. `due` has the flows by the second in
    /// which they are due, and more entries than there are flows.
    pub(super) fn next<'a>(
        &mut self,
        due: &BTreeMap<u64, Vec<RawTuple>>,
        records: &'a HashMap<RawTuple, PacketFlow>,
        steps: &mut usize,
    ) -> Option<(RawTuple, &'a PacketFlow)> {
        while *steps > 0 {
            *steps -= 1;
            let Some((second, tuples)) = due.range(self.second..).next() else {
                *steps += 1;
                return None;
            };
            if *second > self.second {
                (self.second, self.position) = (*second, 0);
            }
            let Some(tuple) = tuples.get(self.position) else {
                (self.second, self.position) = (second + 1, 0);
                continue;
            };
            self.position += 1;
            // One that was put off is found where it is now.
            if let Some(record) = records.get(tuple).filter(|record| record.due == *second) {
                return Some((*tuple, record));
            }
        }
        None
    }
}
