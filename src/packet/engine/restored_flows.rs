//! Flows that the engine of another machine tells of.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::flow::PacketFlow;
use super::kernel_flow::KernelFlow;
use super::worker::PacketWorker;
use crate::engine::EngineProtocol;
use crate::packet::error::PacketError;
use crate::packet::flow_direction::FlowDirection;
use crate::packet::flow_sync::{FlowBatch, RestoredFlows, SyncedFlow};
use crate::packet::layout::{PROTOCOL_TCP, PROTOCOL_UDP, RawServiceKey, RawTuple, flow_state};
use crate::packet::netlink::RouteToServer;

/// The clients whose devices are remembered.
const MAX_DEVICES: usize = 1 << 16;
/// The flows that wait for their service or their server.
const MAX_UNKNOWN: usize = 1 << 16;
/// A time before now in which a flow was seen that the program is to look at with its next packet.
const OLD_NANOS: u64 = 1 << 33;

/// The servers that flows of a batch have, by service and address.
type ServerNumbers = HashMap<(u32, SocketAddr), u32>;

/// What becomes of a flow that another machine tells of.
enum RestoredAs {
    Applied,
    Unknown,
    Own,
}

impl PacketWorker {
    /// Makes flows what another machine says of them, but for those of addresses that this machine has.
    pub(super) fn restore_flows(
        &mut self,
        batch: &FlowBatch,
    ) -> Result<RestoredFlows, PacketError> {
        self.flows.confirmed_at = self.clock.now();
        if batch.begins_all {
            self.followed.round = self.followed.round.wrapping_add(1);
            self.followed.unknown.clear();
        }
        let numbers = self.server_numbers();
        let mut restored = RestoredFlows::default();
        for flow in &batch.flows {
            let key = (flow.protocol, flow.client, flow.virtual_address);
            self.followed.unknown.remove(&key);
            match self.restore(flow, &numbers)? {
                RestoredAs::Applied => restored.applied += 1,
                RestoredAs::Own => restored.own += 1,
                RestoredAs::Unknown => {
                    restored.unknown += 1;
                    if flow.is_open && self.followed.unknown.len() < MAX_UNKNOWN {
                        self.followed.unknown.insert(key, *flow);
                    }
                }
            }
        }
        if batch.ends_all {
            self.drop_unnamed()?;
        }
        Ok(restored)
    }

    /// Restores the flows whose services or servers were not known, because a set has changed.
    pub(super) fn restore_unknown(&mut self) -> Result<(), PacketError> {
        if self.followed.unknown.is_empty() {
            return Ok(());
        }
        let numbers = self.server_numbers();
        for (key, flow) in std::mem::take(&mut self.followed.unknown) {
            if let RestoredAs::Unknown = self.restore(&flow, &numbers)? {
                self.followed.unknown.insert(key, flow);
            }
        }
        Ok(())
    }

    fn restore(
        &mut self,
        flow: &SyncedFlow,
        numbers: &ServerNumbers,
    ) -> Result<RestoredAs, PacketError> {
        let protocol = match flow.protocol {
            EngineProtocol::Tcp => PROTOCOL_TCP,
            EngineProtocol::Udp => PROTOCOL_UDP,
        };
        let key = RawServiceKey::new(flow.virtual_address, protocol);
        let Some(service) = self.services.get(&key).filter(|it| it.drain.is_none()) else {
            return Ok(RestoredAs::Unknown);
        };
        let (id, is_elsewhere) = (service.id, service.is_elsewhere);
        let is_taken_over = service.gained_at.is_some();
        if !is_elsewhere && !is_taken_over {
            return Ok(RestoredAs::Own);
        }
        let server = numbers.get(&(id, flow.server)).copied();
        let is_of_family = flow.client.is_ipv4() == flow.virtual_address.is_ipv4();
        let Some(server) = server.filter(|_| is_of_family) else {
            return Ok(RestoredAs::Unknown);
        };
        let tuple = RawTuple::new(flow.client, flow.virtual_address, protocol);
        let record = self.flows.get(&tuple);
        let is_others = record.map_or(is_elsewhere, |record| record.round.is_some());
        if is_others && self.restore_others(tuple, (id, server), flow)? {
            return Ok(RestoredAs::Applied);
        }
        let known = KernelFlow::read(&tuple, &self.maps)?;
        // The machine that had the address tells of its youngest flows, and of those that have ended there.
        let has_passed_here =
            |known: &KernelFlow| flow.is_open || known.seen_at() > self.flows.confirmed_at(&tuple);
        if !is_elsewhere && known.as_ref().is_some_and(has_passed_here) {
            return Ok(RestoredAs::Own);
        }
        if flow.is_open {
            let round = is_elsewhere.then_some(self.followed.round);
            self.restore_open(tuple, (id, server), round, known)?;
        } else if known.is_none_or(|it| it.there.rewritten.destination() == flow.server) {
            // Another one of the same client may have begun since.
            self.flows.drop_elsewhere(&[tuple], &mut self.maps, &mut self.servers)?;
        }
        Ok(RestoredAs::Applied)
    }

    fn server_numbers(&self) -> ServerNumbers {
        let slots = self.servers.iter().collect::<Vec<_>>();
        // Of two with one address that which the service has now, which comes last.
        let (left, members): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|(_, slot)| !slot.is_member);
        let numbers = left.into_iter().chain(members);
        numbers.map(|(index, slot)| ((slot.raw.service, slot.raw.address()), index)).collect()
    }

    /// Makes a flow, or forgets it, of which this engine knows only what the other machine has told. Returns false if it
    /// has to be looked at: most flows begin and end, and the kernel's table need not be read for that.
    fn restore_others(
        &mut self,
        tuple: RawTuple,
        (service, server): (u32, u32),
        flow: &SyncedFlow,
    ) -> Result<bool, PacketError> {
        match self.flows.get(&tuple) {
            None if flow.is_open => {
                let round = Some(self.followed.round);
                self.insert_restored(tuple, (service, server), round)?;
                Ok(true)
            }
            None => Ok(true),
            Some(record) if !flow.is_open && record.server == server => {
                let Some(raw) = self.servers.get(server).map(|slot| slot.raw) else {
                    return Ok(false);
                };
                let (there, back) = FlowDirection::of_new_flow(tuple, (server, &raw), 0, 0);
                self.flows.drop_directions(
                    &there,
                    back.as_ref(),
                    &mut self.maps,
                    &mut self.servers,
                )?;
                Ok(true)
            }
            Some(_) => Ok(false),
        }
    }

    fn restore_open(
        &mut self,
        tuple: RawTuple,
        (service, server): (u32, u32),
        round: Option<u32>,
        known: Option<KernelFlow>,
    ) -> Result<(), PacketError> {
        let has_record = self.flows.get(&tuple).is_some_and(|record| record.server == server);
        let is_there = |flow: &KernelFlow| {
            let state = flow.there.state;
            flow.there.server == server
                && flow.is_whole()
                && !flow.there.is_over()
                && state & flow_state::ANSWERED != 0
        };
        if has_record && known.as_ref().is_some_and(is_there) {
            self.flows.confirm(&tuple, round);
            return Ok(());
        }
        if known.is_some() || self.flows.get(&tuple).is_some() {
            self.flows.drop_elsewhere(&[tuple], &mut self.maps, &mut self.servers)?;
        }
        self.insert_restored(tuple, (service, server), round)
    }

    fn insert_restored(
        &mut self,
        tuple: RawTuple,
        (service, server): (u32, u32),
        round: Option<u32>,
    ) -> Result<(), PacketError> {
        let Some(raw) = self.servers.get(server).map(|slot| slot.raw) else { return Ok(()) };
        let device = if raw.is_direct() { None } else { self.device_to(tuple.source().ip()) };
        let now = self.clock.now();
        // With its next packet the program looks whether the way back is there, and leads where the client is.
        let (there, back) = FlowDirection::of_new_flow(
            tuple,
            (server, &raw),
            device.unwrap_or_default(),
            now.saturating_sub(OLD_NANOS),
        );
        if let Some(back) = back.filter(|_| device.is_some()) {
            let state = back.state | flow_state::ANSWERED;
            self.maps.insert_flow(FlowDirection { state, ..back })?;
        }
        let state = there.state | flow_state::ANSWERED | flow_state::ASSURED;
        self.maps.insert_flow(FlowDirection { state, ..there })?;
        let mut record = PacketFlow::new(self.lease_of(service, server), server, service, now);
        (record.is_answered, record.round, record.confirmed_at) = (true, round, now);
        self.flows.insert(tuple, record, &mut self.servers, &self.settings);
        Ok(())
    }

    /// Returns the device of the route to a client.
    fn device_to(&mut self, client: IpAddr) -> Option<u32> {
        if self.followed.devices.len() >= MAX_DEVICES {
            self.followed.devices.clear();
        }
        let netlink = &mut self.netlink;
        *self.followed.devices.entry(client).or_insert_with(|| match netlink.route(client) {
            Ok(RouteToServer::Device { index, .. }) => Some(index),
            Ok(RouteToServer::Local) | Err(_) => None,
        })
    }

    /// Forgets which routes lead to clients, which may have changed.
    pub(super) fn forget_routes_to_clients(&mut self) {
        self.followed.devices.clear();
    }

    /// Forgets the flows of other machines' addresses that were not named since all flows began.
    fn drop_unnamed(&mut self) -> Result<(), PacketError> {
        let round = Some(self.followed.round);
        let elsewhere = self.services.values().filter(|service| service.is_elsewhere);
        let elsewhere = elsewhere.map(|service| service.id).collect::<Vec<_>>();
        let unnamed = self
            .flows
            .iter()
            .filter(|(_, record)| record.round != round && elsewhere.contains(&record.service));
        let unnamed = unnamed.map(|(tuple, _)| *tuple).collect::<Vec<_>>();
        self.flows.drop_elsewhere(&unnamed, &mut self.maps, &mut self.servers)
    }
}
