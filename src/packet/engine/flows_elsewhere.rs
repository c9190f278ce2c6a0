//! Flows that two machines know: those that another one has, and those that another one is told of.

use std::collections::BTreeSet;

use super::flow::FlowEnding;
use super::flow_table::PacketFlowTable;
use super::kernel_flow::KernelFlow;
use super::server_slots::ServerSlots;
use crate::backend::Outcome;
use crate::engine::EngineFlowEnd;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::RawTuple;
use crate::packet::maps::PacketMaps;

impl PacketFlowTable {
    /// Says that another machine was told of a flow.
    pub(super) fn set_told(&mut self, tuple: &RawTuple) {
        if let Some(record) = self.records.get_mut(tuple) {
            record.is_told = true;
        }
    }

    /// Says in which round another machine has told of a flow that it has; `None` if this machine has it now.
    pub(super) fn confirm(&mut self, tuple: &RawTuple, round: Option<u32>) {
        if let Some(record) = self.records.get_mut(tuple) {
            record.round = round;
        }
    }

    /// Makes the flows of services this machine's own: it has their address now.
    pub(super) fn take_over(&mut self, services: &BTreeSet<u32>) {
        for record in self.records.values_mut().filter(|it| services.contains(&it.service)) {
            if record.round.take().is_some() {
                record.confirmed_at = self.confirmed_at;
            }
        }
    }

    /// Forgets flows that another machine has, or had, here and in the kernel. Nothing is recorded of their ends.
    pub(super) fn drop_elsewhere(
        &mut self,
        tuples: &[RawTuple],
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        for tuple in tuples {
            if let Some(flow) = KernelFlow::read(tuple, maps)? {
                flow.remove(maps)?;
            }
            self.drop_record(tuple, servers);
        }
        Ok(())
    }

    /// Forgets a flow whose directions are known, in the same way.
    pub(super) fn drop_directions(
        &mut self,
        there: &FlowDirection,
        back: Option<&FlowDirection>,
        maps: &mut PacketMaps,
        servers: &mut ServerSlots,
    ) -> Result<(), PacketError> {
        if let Some(back) = back {
            maps.remove_flow(&back.tuple)?;
        }
        maps.remove_flow(&there.tuple)?;
        self.drop_record(&there.tuple, servers);
        Ok(())
    }

    fn drop_record(&mut self, tuple: &RawTuple, servers: &mut ServerSlots) {
        let Some(record) = self.records.get_mut(tuple) else { return };
        record.round.get_or_insert_default();
        // The other machine knows better.
        record.is_told = false;
        let (end, outcome) = (EngineFlowEnd::Forgotten, Outcome::Cancelled);
        self.remove(tuple, servers, FlowEnding { end, outcome, at: 0, bytes: [None; 2] });
    }

    /// Returns when another machine said last that it has a flow, or had it until this one got the address; 0 if it did
    /// not.
    pub(super) fn confirmed_at(&self, tuple: &RawTuple) -> u64 {
        self.records.get(tuple).map_or(0, |record| match record.round {
            Some(_) => self.confirmed_at,
            None => record.confirmed_at,
        })
    }
}
