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
    /// The direction to the client; `None` if a full table has forgotten it, or it is that of a newer flow.
    pub(super) back: Option<FlowDirection>,
}

impl KernelFlow {
    /// Reads the flow of a client's tuple; `None` if the kernel does not have the direction to the server.
    pub(super) fn read(tuple: &RawTuple, maps: &PacketMaps) -> Result<Option<Self>, PacketError> {
        maps.flow(tuple)?.map(|there| Self::with_back(there, maps)).transpose()
    }

    /// Reads the direction to the client of a flow whose other one is known.
    pub(super) fn with_back(there: FlowDirection, maps: &PacketMaps) -> Result<Self, PacketError> {
        let back = maps.flow(&there.back_tuple())?;
        let back = back.filter(|back| back.back_tuple() == there.tuple);
        Ok(Self { there, back })
    }

    /// Returns when its last packet passed, in nanoseconds of the monotonic clock.
    pub(super) fn seen_at(&self) -> u64 {
        self.back.map_or(0, |back| back.seen_at).max(self.there.seen_at)
    }

    /// Returns the octets to the server and to the client.
    pub(super) fn bytes(&self) -> [u64; 2] {
        [self.there.bytes, self.back.map_or(0, |back| back.bytes)]
    }

    /// Removes both directions.
    pub(super) fn remove(&self, maps: &mut PacketMaps) -> Result<(), PacketError> {
        if let Some(back) = &self.back {
            maps.remove_flow(&back.tuple)?;
        }
        maps.remove_flow(&self.there.tuple)
    }
}
