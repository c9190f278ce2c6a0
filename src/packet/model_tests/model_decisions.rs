//! Who decides a flow in the model.

use std::net::SocketAddr;

use super::frames::{ACK, FIN, RST, SYN};
use super::model::{FrameVerdict, ModelOutput, OtherDirection, ProgramModel};
use super::model_state::{ModelEvent, ModelFlow, ModelService, TEST_DEVICE, TapDevice};
use super::parsed::PacketKey;
use crate::packet::layout::{PROTOCOL_TCP, event_kind, flow_state};
use crate::packet::statistics::PacketStatistics;

impl ProgramModel {
    /// Has a flow that an ICMP error is about begin by the table, if it is not known and the table is the scheduler's.
    pub(super) fn begin_for_error(
        &mut self,
        key: PacketKey,
        decided: Option<u32>,
        has_flow: &dyn Fn(PacketKey) -> bool,
    ) {
        let service = self.services.get(&(key.1, key.2)).cloned();
        let Some(service) = service.filter(|_| !self.flows.contains_key(&key)) else { return };
        let is_elsewhere = service.is_elsewhere && self.director.is_alive;
        if !service.is_keyed || service.sheds || is_elsewhere {
            return;
        }
        if let Some(server) = self.usable_server(key, &service, decided) {
            self.add_flow(key, server, service.id);
            self.statistics.keyed_decisions += 1;
            let place = self.places.next(key);
            if let Some(flow) = self.flows.get_mut(&key) {
                flow.place = place as u16;
            }
            self.take_place(key, place, has_flow);
        }
    }

    /// Returns the server that the program has chosen of a service's table, if it may have, and has to if all can be.
    fn usable_server(
        &self,
        key: PacketKey,
        service: &ModelService,
        decided: Option<u32>,
    ) -> Option<u32> {
        let usable =
            service.slots.iter().filter(|server| self.is_usable(key, service.id, **server));
        let usable: Vec<_> = usable.copied().collect();
        match decided {
            Some(server) => assert!(usable.contains(&server), "{server} for {key:?}: {usable:?}"),
            // Some slots are tried, of many.
            None => assert!(usable.len() < service.slots.len().max(1), "one for {key:?}"),
        }
        decided
    }

    /// Decides a packet without a flow. Returns `None` if it has one now.
    pub(super) fn decide(
        &mut self,
        (key, hop_limit, tcp_flags): (PacketKey, u8, u8),
        has_ports: bool,
        decided: Option<u32>,
        output: &mut ModelOutput,
    ) -> Option<FrameVerdict> {
        let Some(service) = self.services.get(&(key.1, key.2)).cloned() else {
            return Some(FrameVerdict::Next);
        };
        let director = self.director;
        if service.is_elsewhere && director.is_alive {
            self.statistics.elsewhere += 1;
            return Some(FrameVerdict::Drop);
        }
        let unknown = |statistics: &mut PacketStatistics| {
            if service.is_new_here && director.is_alive {
                statistics.elsewhere += 1;
                return Some(FrameVerdict::Drop);
            }
            statistics.without_flow += 1;
            Some(FrameVerdict::Next)
        };
        let begins = key.2 != PROTOCOL_TCP || tcp_flags & (SYN | ACK | RST) == SYN;
        let goes_on =
            service.is_keyed && !service.sheds && tcp_flags & (FIN | SYN | RST | ACK) == ACK;
        if !begins && !goes_on {
            return unknown(&mut self.statistics);
        }
        if hop_limit <= 1 {
            return Some(self.answer((key, has_ports), None, output));
        }
        if director.tap == TapDevice::Test {
            self.statistics.refused_without_server += 1;
            return Some(FrameVerdict::Next);
        }
        let is_there = director.is_alive && director.tap == TapDevice::Present;
        let can_ask = service.is_owned && is_there && director.has_budget;
        if can_ask && !service.is_keyed {
            return Some(self.ask(output));
        }
        if service.sheds {
            self.statistics.refused_at_limit += 1;
            return Some(FrameVerdict::Next);
        }
        let Some(server) = self.usable_server(key, &service, decided) else {
            if !begins {
                return unknown(&mut self.statistics);
            }
            if can_ask && service.is_keyed {
                return Some(self.ask(output));
            }
            self.statistics.refused_without_server += 1;
            return Some(FrameVerdict::Next);
        };
        self.add_flow(key, server, service.id);
        let of_table = &mut self.statistics.table_decisions;
        let of_rule = &mut self.statistics.keyed_decisions;
        *(if service.is_keyed { of_rule } else { of_table }) += 1;
        None
    }

    /// Sends a frame to the director.
    fn ask(&mut self, output: &mut ModelOutput) -> FrameVerdict {
        self.statistics.upcalls += 1;
        output.frame[6..10].copy_from_slice(&TEST_DEVICE.to_ne_bytes());
        output.frame[10..12].fill(0);
        FrameVerdict::Redirect
    }

    fn is_usable(&self, key: PacketKey, service: u32, server: u32) -> bool {
        let Some(server) = self.servers.get(&server) else { return false };
        server.is_available
            && server.has_route
            && server.service == service
            && (server.is_direct() || self.is_way_back_free(key, server.address))
    }

    /// Returns whether packets from a server to a client are of no other flow that lives.
    fn is_way_back_free(&self, key: PacketKey, server: SocketAddr) -> bool {
        let back = (server, key.0, key.2);
        match self.other_direction(back) {
            OtherDirection::Present(other) => other == key || self.flows[&other].is_over(),
            OtherDirection::Absent | OtherDirection::Replaced => true,
        }
    }

    fn add_flow(&mut self, key: PacketKey, server: u32, service: u32) {
        let chosen = &self.servers[&server];
        let (destination, is_direct) = (chosen.address, chosen.is_direct());
        let mtu = chosen.route_mtu();
        self.remove_back(key);
        let state = if is_direct { flow_state::DIRECT } else { 0 };
        let (source, bytes, place) = (key.0, 0, 0);
        let there = ModelFlow { source, destination, server, service, state, bytes, place, mtu };
        if !is_direct {
            let (source, destination, state) = (key.1, key.0, flow_state::TO_CLIENT);
            let back = ModelFlow { source, destination, state, mtu: None, ..there.clone() };
            self.flows.insert(there.back(key.2), back);
        }
        self.flows.insert(key, there);
        self.counters.entry(server).or_default().connections += 1;
        let (kind, ifindex) = (event_kind::DECIDED, TEST_DEVICE);
        let bytes = [0; 2];
        self.events.push(ModelEvent { kind, key, server, service, state: 0, ifindex, bytes });
    }
}
