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

/// What another machine has told so far.
#[derive(Debug, Default)]
pub(super) struct FollowedEngine {
    /// Counts how often it began to tell all flows.
    round: u32,
    /// The devices of the routes to clients, which are forgotten every second.
    devices: HashMap<IpAddr, Option<u32>>,
}

/// The clients whose devices are remembered.
const MAX_DEVICES: usize = 1 << 16;

/// The servers that flows of a batch have, by service and address.
type ServerNumbers = HashMap<(u32, SocketAddr), u32>;

impl PacketWorker {
    /// Makes flows what another machine says of them, but for those of addresses that this machine has.
    pub(super) fn restore_flows(
        &mut self,
        batch: &FlowBatch,
    ) -> Result<RestoredFlows, PacketError> {
        self.flows.confirmed_at = self.clock.now();
        if batch.begins_all {
            self.followed.round = self.followed.round.wrapping_add(1);
        }
        let numbers = self.server_numbers();
        let mut restored = RestoredFlows::default();
        for flow in &batch.flows {
            let protocol = match flow.protocol {
                EngineProtocol::Tcp => PROTOCOL_TCP,
                EngineProtocol::Udp => PROTOCOL_UDP,
            };
            let key = RawServiceKey::new(flow.virtual_address, protocol);
            let Some(service) = self.services.get(&key).filter(|it| it.drain.is_none()) else {
                restored.unknown += 1;
                continue;
            };
            let (is_own, is_taken_over) = (!service.is_elsewhere, service.gained_at.is_some());
            if is_own && !(is_taken_over && flow.is_open) {
                restored.own += 1;
                continue;
            }
            let server = numbers.get(&(service.id, flow.server)).copied();
            let is_of_family = flow.client.is_ipv4() == flow.virtual_address.is_ipv4();
            let Some(server) = server.filter(|_| is_of_family) else {
                restored.unknown += 1;
                continue;
            };
            let tuple = RawTuple::new(flow.client, flow.virtual_address, protocol);
            // The machine that had the address tells of its youngest flows.
            if is_own && self.maps.flow(&tuple)?.is_some() {
                restored.own += 1;
                continue;
            }
            self.restore_flow(tuple, (service.id, server), flow)?;
            restored.applied += 1;
        }
        if batch.ends_all {
            self.drop_unnamed()?;
        }
        Ok(restored)
    }

    fn server_numbers(&self) -> ServerNumbers {
        let slots = self.servers.iter().collect::<Vec<_>>();
        // Of two with one address that which the service has now, which comes last.
        let (left, members): (Vec<_>, Vec<_>) =
            slots.into_iter().partition(|(_, slot)| !slot.is_member);
        let numbers = left.into_iter().chain(members);
        numbers.map(|(index, slot)| ((slot.raw.service, slot.raw.address()), index)).collect()
    }

    fn restore_flow(
        &mut self,
        tuple: RawTuple,
        (service, server): (u32, u32),
        synced: &SyncedFlow,
    ) -> Result<(), PacketError> {
        let round = self.followed.round;
        let known = KernelFlow::read(&tuple, &self.maps)?;
        if !synced.is_open {
            // It may have ended before another one with the same client.
            if known.is_none_or(|known| known.there.server == server) {
                self.flows.drop_elsewhere(&[tuple], &mut self.maps, &mut self.servers)?;
            }
            return Ok(());
        }
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
        if let Some(known) = known {
            known.remove(&mut self.maps)?;
        }
        self.flows.drop_elsewhere(&[tuple], &mut self.maps, &mut self.servers)?;
        let Some(raw) = self.servers.get(server).map(|slot| slot.raw) else { return Ok(()) };
        let device = if raw.is_direct() { None } else { self.device_to(synced.client.ip()) };
        let now = self.clock.now();
        let (there, back) =
            FlowDirection::of_new_flow(tuple, (server, &raw), device.unwrap_or_default(), now);
        // Without a route to the client its next packet makes the way back.
        if let Some(back) = back.filter(|_| device.is_some()) {
            let state = back.state | flow_state::ANSWERED;
            self.maps.insert_flow(FlowDirection { state, ..back })?;
        }
        let state = there.state | flow_state::ANSWERED | flow_state::ASSURED;
        self.maps.insert_flow(FlowDirection { state, ..there })?;
        let mut record = PacketFlow::new(self.lease_of(service, server), server, service, now);
        let is_elsewhere = self.services.values().any(|it| it.id == service && it.is_elsewhere);
        (record.is_answered, record.round) = (true, is_elsewhere.then_some(round));
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

    /// Forgets the flows of a service whose address another machine has.
    pub(super) fn drop_flows_elsewhere(&mut self, service: u32) -> Result<(), PacketError> {
        let of_service = self.flows.iter().filter(|(_, record)| record.service == service);
        let of_service = of_service.map(|(tuple, _)| *tuple).collect::<Vec<_>>();
        self.flows.drop_elsewhere(&of_service, &mut self.maps, &mut self.servers)
    }
}
