//! A flow as the kernel has it.

use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::RawTuple;
use crate::packet::maps::PacketMaps;

/// Both directions of a flow in the kernel's table.
#[derive(Debug)]
pub(super) struct KernelFlow {
    /// The direction to the server.
    pub(super) there: FlowDirection,
    /// The direction to the client; `None` if there is none, by direct routing, or if a full table has forgotten
    /// it, or it is that of a newer flow.
    pub(super) back: Option<FlowDirection>,
}

impl KernelFlow {
    /// Reads the flow of a client's tuple; `None` if the kernel does not have the direction to the server.
    pub(super) fn read(tuple: &RawTuple, maps: &PacketMaps) -> Result<Option<Self>, PacketError> {
        maps.flow(tuple)?.map(|there| Self::with_back(there, maps)).transpose()
    }

    /// Reads the direction to the client of a flow whose other one is known.
    pub(super) fn with_back(there: FlowDirection, maps: &PacketMaps) -> Result<Self, PacketError> {
        if there.is_direct() {
            return Ok(Self { there, back: None });
        }
        let back = maps.flow(&there.back_tuple())?;
        let back = back.filter(|back| back.back_tuple() == there.tuple);
        Ok(Self { there, back })
    }

    /// Returns whether a full table has forgotten nothing of it.
    pub(super) const fn is_whole(&self) -> bool {
        self.back.is_some() || self.there.is_direct()
    }

    /// Returns when its last packet passed, in nanoseconds of the monotonic clock.
    pub(super) fn seen_at(&self) -> u64 {
        self.back.map_or(0, |back| back.seen_at).max(self.there.seen_at)
    }

    /// Returns the octets to the server and to the client; those to the client are not known by direct routing.
    pub(super) fn bytes(&self) -> [Option<u64>; 2] {
        let back = self.back.map_or(0, |back| back.bytes);
        [Some(self.there.bytes), (!self.there.is_direct()).then_some(back)]
    }

    /// Removes both directions.
    pub(super) fn remove(&self, maps: &mut PacketMaps) -> Result<(), PacketError> {
        if let Some(back) = &self.back {
            maps.remove_flow(&back.tuple)?;
        }
        maps.remove_flow(&self.there.tuple)
    }
}
