//! Flows that nobody is assured of, in the model: they have places, and the oldest one is forgotten for the next.

use std::collections::VecDeque;

use super::model::{OtherDirection, ProgramModel};
use super::model_state::{ModelEvent, ModelFlow};
use super::parsed::PacketKey;
use crate::packet::layout::{PROTOCOL_TCP, event_kind, flow_state};

/// The places, for each family.
#[derive(Debug, Default)]
pub(super) struct ModelPlaces {
    /// By the packets of the client, the oldest first, with the number of the place.
    of_family: [VecDeque<(u64, PacketKey)>; 2],
    /// The last number.
    numbers: [u64; 2],
    pub(super) max: usize,
}

impl ModelPlaces {
    /// Returns the number of the next place.
    pub(super) fn next(&mut self, key: PacketKey) -> u64 {
        let number = &mut self.numbers[usize::from(key.0.is_ipv6())];
        *number += 1;
        *number
    }

    fn take(&mut self, number: u64, key: PacketKey) -> Option<(u64, PacketKey)> {
        let family = &mut self.of_family[usize::from(key.0.is_ipv6())];
        let oldest = (family.len() == self.max).then(|| family.pop_front());
        family.push_back((number, key));
        oldest.flatten()
    }
}

impl ModelFlow {
    /// Returns whether a packet of TCP with these flags, or a datagram, shows that the client is there.
    pub(super) fn is_assured_by(&self, acknowledges: bool) -> bool {
        !self.is_to_client() && self.state & flow_state::ANSWERED != 0 && acknowledges
    }

    fn is_assured(&self) -> bool {
        self.state & flow_state::ASSURED != 0
    }
}

impl ProgramModel {
    /// Removes the direction to the client of the flow that has a client's key, if there is one.
    pub(super) fn remove_back(&mut self, key: PacketKey) {
        if self.flows.get(&key).is_some_and(|flow| !flow.is_to_client())
            && let OtherDirection::Present(back) = self.other_direction(key)
        {
            self.flows.remove(&back);
        }
    }

    /// Gives a flow a place, which the oldest one may lose.
    pub(super) fn take_place(
        &mut self,
        client: PacketKey,
        number: u64,
        has_flow: &dyn Fn(PacketKey) -> bool,
    ) {
        let Some((number, oldest)) = self.places.take(number, client) else { return };
        let Some(flow) = self.flows.get(&oldest).filter(|flow| !flow.is_to_client()).cloned()
        else {
            return;
        };
        if flow.place != number as u16 || (flow.is_assured() && !flow.is_over()) {
            return;
        }
        // It lasts.
        let may_last = if flow.is_over() { flow.is_assured() } else { oldest.2 != PROTOCOL_TCP };
        if may_last && has_flow(oldest) {
            self.flows.get_mut(&oldest).expect("it is there").state |= flow_state::ASSURED;
            return;
        }
        let bytes_back = match self.other_direction(oldest) {
            OtherDirection::Present(back) => self.flows[&back].bytes,
            OtherDirection::Absent | OtherDirection::Replaced => 0,
        };
        self.remove_back(oldest);
        self.flows.remove(&oldest);
        if !flow.is_over() {
            self.statistics.unassured_forgotten += 1;
            let ModelFlow { server, state, bytes, .. } = flow;
            self.events.push(ModelEvent {
                kind: event_kind::FORGOTTEN,
                key: oldest,
                server,
                service: 0,
                state,
                ifindex: 0,
                bytes: [bytes, bytes_back],
            });
        }
    }
}
