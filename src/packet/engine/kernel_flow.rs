//! A flow as the kernel has it.

use crate::packet::error::PacketError;
use crate::packet::layout::{RawFlow, RawTuple};
use crate::packet::maps::PacketMaps;

/// Both directions of a flow in the kernel's table.
#[derive(Debug)]
pub(super) struct KernelFlow {
    tuple: RawTuple,
    /// The direction to the server.
    pub(super) there: RawFlow,
    /// The direction to the client; `None` if a full table has forgotten it, or it is that of a newer flow.
    pub(super) back: Option<RawFlow>,
}

impl KernelFlow {
    /// Reads the flow of a client's tuple; `None` if the kernel does not have the direction to the server.
    pub(super) fn read(tuple: RawTuple, maps: &PacketMaps) -> Result<Option<Self>, PacketError> {
        maps.flow(&tuple)?.map(|there| Self::with_back(tuple, there, maps)).transpose()
    }

    /// Reads the direction to the client of a flow whose other one is known.
    pub(super) fn with_back(
        tuple: RawTuple,
        there: RawFlow,
        maps: &PacketMaps,
    ) -> Result<Self, PacketError> {
        let back = maps.flow(&Self::back_tuple(tuple, &there))?;
        let back = back.filter(|back| Self::back_tuple(tuple, back) == tuple);
        Ok(Self { tuple, there, back })
    }

    /// Returns the tuple of the packets that answer those of one direction.
    fn back_tuple(tuple: RawTuple, direction: &RawFlow) -> RawTuple {
        direction.rewritten(tuple.protocol).reversed()
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
        if self.back.is_some() {
            maps.remove_flow(&Self::back_tuple(self.tuple, &self.there))?;
        }
        maps.remove_flow(&self.tuple)
    }
}
