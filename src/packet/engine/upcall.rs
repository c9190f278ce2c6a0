//! The packets that the scheduler decides: read from the tap device, and written back when the flow is there.

use std::time::Instant;

use super::flow::PacketFlow;
use super::kernel_flow::KernelFlow;
use super::tap::HEADER_LEN;
use super::virtual_service::ChosenServer;
use super::worker::PacketWorker;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::frame::UpcallFrame;
use crate::packet::layout::{RawServiceKey, RawTuple, flow_state};
use crate::packet::maps::PacketMaps;
use crate::scheduler::Flow;

/// The servers that are tried for a flow whose way back would be that of another flow.
const MAX_TRIES: usize = 4;
/// The servers that are passed over for a flow because packets do not reach them.
const MAX_PASSED_OVER: usize = 256;

impl PacketWorker {
    /// Decides the packets that wait, up to a number of them.
    pub(super) fn decide_waiting(
        &mut self,
        buffer: &mut [u8],
        now: Instant,
        max: usize,
    ) -> Result<(), PacketError> {
        for _ in 0..max {
            let received =
                self.tap.receive(buffer).map_err(|source| PacketError::Tap { source })?;
            let Some(frame) = received else { return Ok(()) };
            let Some(packet) = frame.get_mut(HEADER_LEN..) else { continue };
            if let Some(upcall) = UpcallFrame::parse(packet) {
                // A later fragment follows the first, which was decided before it.
                if let Some(tuple) = upcall.tuple {
                    let key = RawServiceKey::new(tuple.destination(), tuple.protocol);
                    if self.unowned.contains_key(&key) {
                        // It was asked for before the service was handed over. The table decides what is sent
                        // again.
                        continue;
                    }
                    self.decide(&key, tuple, upcall.ifindex, now)?;
                }
                UpcallFrame::address_to(packet, &self.tap.device.mac);
                // The device is this thread's own: it takes every frame while it is up.
                if let Err(error) = self.tap.send(frame) {
                    self.say(&format!("a packet that was decided is lost: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Makes the flow of a packet, or leaves it without one: the program refuses the packet then.
    fn decide(
        &mut self,
        key: &RawServiceKey,
        tuple: RawTuple,
        ifindex: u32,
        now: Instant,
    ) -> Result<(), PacketError> {
        let mut present = self.maps.flow(&tuple)?;
        if let Some(present) = present {
            let has_begun_to_end = flow_state::FINS | flow_state::RESETS;
            // Decided by a packet before this one: here, or by a table while this thread was late.
            if present.state & has_begun_to_end == 0 {
                if self.flows.get(&tuple).is_none() {
                    self.adopt_found(&present)?;
                }
                return Ok(());
            }
        }
        let Some(service) = self.services.get(key).filter(|service| service.drain.is_none()) else {
            return Ok(());
        };
        let mut flow = Flow::from(tuple.source()).destination(tuple.destination()).time(now);
        let mut tries = 0;
        for _ in 0..MAX_PASSED_OVER {
            let chosen = match service.choose(&flow, now) {
                Ok(chosen) => chosen,
                Err(error) => {
                    self.refusals.count(error);
                    return Ok(());
                }
            };
            let (server, lease) = match chosen {
                ChosenServer::Backend(server, lease) => (server, Some(lease)),
                ChosenServer::Sorry(server) => (server, None),
                ChosenServer::Unreachable(lease) => {
                    flow.exclude(lease.backend());
                    continue;
                }
            };
            let Some(slot) = self.servers.get_mut(server) else { return Ok(()) };
            let begun_at = self.clock.now();
            let (there, back) =
                FlowDirection::of_new_flow(tuple, (server, &slot.raw), ifindex, begun_at);
            // A connection that has ended, with the same port of the client.
            if let Some(ended) = present.take().filter(|ended| !ended.is_to_client()) {
                KernelFlow::with_back(ended, &self.maps)?.remove(&mut self.maps)?;
            }
            let has_device = slot.raw.ifindex != 0;
            let is_reachable = has_device
                && match back {
                    Some(back) => add_way_back(&mut self.maps, back)?,
                    None => true,
                };
            if !is_reachable {
                tries += usize::from(has_device);
                match lease {
                    Some(lease) if tries < MAX_TRIES => flow.exclude(lease.backend()),
                    _ => return Ok(()),
                }
                continue;
            }
            self.maps.insert_flow(there)?;
            slot.decided += 1;
            let record = PacketFlow::new(lease, server, service.id, begun_at);
            self.flows.insert(tuple, record, &mut self.servers, &self.settings);
            return Ok(());
        }
        Ok(())
    }
}

/// Makes the direction to the client of a new flow. Returns `false` if it is that of another flow that lives.
fn add_way_back(maps: &mut PacketMaps, back: FlowDirection) -> Result<bool, PacketError> {
    // Nearly always one step.
    if maps.add_flow(back)? {
        return Ok(true);
    }
    let is_taken = |old: &FlowDirection| !old.is_over() && old.back_tuple() != back.back_tuple();
    if maps.flow(&back.tuple)?.as_ref().is_some_and(is_taken) {
        return Ok(false);
    }
    maps.insert_flow(back)?;
    Ok(true)
}
