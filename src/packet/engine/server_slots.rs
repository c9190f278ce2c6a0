//! The servers of all services, by the numbers that the program has for them.

use std::net::IpAddr;

use crate::BackendId;
use crate::packet::error::PacketError;
use crate::packet::layout::{MAX_SERVERS, NO_SERVICE, RawServer, RawServerCounters};
use crate::packet::maps::PacketMaps;

/// A server of a service, and what the thread knows of it.
#[derive(Debug)]
pub(super) struct ServerSlot {
    /// What the program has.
    pub(super) raw: RawServer,
    /// `None` for a sorry server, and for one that an earlier process left.
    pub(super) backend: Option<BackendId>,
    /// Whether the service has it; if it has not, the number is free when its flows have ended.
    pub(super) is_member: bool,
    /// Flows whose record says this number.
    pub(super) flows: u32,
    /// Flows that were decided by the scheduler.
    pub(super) decided: u64,
    /// Whether it was logged that packets do not reach it.
    pub(super) is_reported: bool,
}

impl ServerSlot {
    const fn new(raw: RawServer, backend: Option<BackendId>, is_member: bool) -> Self {
        Self { raw, backend, is_member, flows: 0, decided: 0, is_reported: false }
    }
}

/// The servers by number.
#[derive(Debug, Default)]
pub(super) struct ServerSlots {
    slots: Vec<Option<ServerSlot>>,
    free: Vec<u32>,
}

impl ServerSlots {
    /// Reads what an earlier process left.
    pub(super) fn read(maps: &PacketMaps) -> Result<Self, PacketError> {
        let mut this = Self::default();
        for index in 0..MAX_SERVERS {
            let raw = maps.server(index)?;
            let is_used = raw != RawServer::default();
            this.slots.push(is_used.then_some(ServerSlot::new(raw, None, false)));
        }
        this.free = (0..MAX_SERVERS).rev().filter(|index| this.get(*index).is_none()).collect();
        Ok(this)
    }

    /// Reads the servers anew, because another process has changed them: their services have none of them until they
    /// are assigned again. `flows` has the number of the server of each flow.
    pub(super) fn read_again(
        &mut self,
        maps: &PacketMaps,
        flows: impl Iterator<Item = u32>,
    ) -> Result<(), PacketError> {
        let mut anew = Self::read(maps)?;
        for (slot, known) in anew.slots.iter_mut().zip(&self.slots) {
            if let (Some(slot), Some(known)) = (slot, known)
                && slot.raw.is_same(&known.raw)
            {
                slot.decided = known.decided;
            }
        }
        flows.for_each(|index| anew.count_flow(index));
        *self = anew;
        Ok(())
    }

    /// Returns the service of a server, which another process may have added.
    pub(super) fn service_of(&self, index: u32, maps: &PacketMaps) -> Result<u32, PacketError> {
        if let Some(slot) = self.get(index) {
            return Ok(slot.raw.service);
        }
        let raw = maps.server(index)?;
        Ok(if raw == RawServer::default() { NO_SERVICE } else { raw.service })
    }

    /// Returns the servers by number, also those that their services have no more and that have flows.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &ServerSlot)> {
        (0..).zip(&self.slots).filter_map(|(index, slot)| Some((index, slot.as_ref()?)))
    }

    pub(super) fn get(&self, index: u32) -> Option<&ServerSlot> {
        self.slots.get(index as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut ServerSlot> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    /// Returns the number of a server, a new one if it has none.
    pub(super) fn assign(
        &mut self,
        maps: &mut PacketMaps,
        server: &RawServer,
        backend: Option<&BackendId>,
    ) -> Result<u32, PacketError> {
        let is_same = |slot: &ServerSlot| {
            slot.raw.is_same(server) && (!slot.is_member || slot.backend.as_ref() == backend)
        };
        let known = self.slots.iter().position(|slot| slot.as_ref().is_some_and(is_same));
        if let Some(index) = known
            && let Some(slot) = &mut self.slots[index]
        {
            (slot.backend, slot.is_member) = (backend.cloned(), true);
            return Ok(index as u32);
        }
        let index = self.free.pop().ok_or_else(|| PacketError::Map {
            map: "servers",
            reason: format!("there are more than {MAX_SERVERS} servers"),
        })?;
        maps.clear_server_counters(index)?;
        maps.set_server(index, server)?;
        self.slots[index as usize] = Some(ServerSlot::new(*server, backend.cloned(), true));
        Ok(index)
    }

    /// Changes what the program knows of a server.
    pub(super) fn update(
        &mut self,
        maps: &mut PacketMaps,
        index: u32,
        change: impl FnOnce(&mut RawServer),
    ) -> Result<(), PacketError> {
        let Some(slot) = self.get_mut(index) else { return Ok(()) };
        let mut raw = slot.raw;
        change(&mut raw);
        if raw != slot.raw {
            maps.set_server(index, &raw)?;
            slot.raw = raw;
        }
        Ok(())
    }

    /// Says that services have some servers no more, until they are assigned again.
    pub(super) fn disown(&mut self, indexes: impl Iterator<Item = u32>) {
        for index in indexes {
            if let Some(slot) = self.get_mut(index) {
                slot.is_member = false;
            }
        }
    }

    /// Has the program choose none of the servers any more that a service does not have.
    pub(super) fn retire_left(
        &mut self,
        maps: &mut PacketMaps,
        service: u32,
    ) -> Result<(), PacketError> {
        let left = self.iter().filter(|(_, slot)| slot.raw.service == service && !slot.is_member);
        for index in left.map(|(index, _)| index).collect::<Vec<_>>() {
            self.update(maps, index, |raw| raw.is_available = 0)?;
        }
        Ok(())
    }

    /// Frees the numbers of servers that their services do not have, when they have no flows. A service that
    /// nobody owns keeps its servers: its table has them. Returns what the program has counted of each of
    /// them, by service.
    pub(super) fn reclaim(
        &mut self,
        maps: &mut PacketMaps,
        is_unowned: impl Fn(u32) -> bool,
    ) -> Result<Vec<(u32, u64, RawServerCounters)>, PacketError> {
        let mut counted = Vec::new();
        for (index, entry) in (0..).zip(&mut self.slots) {
            let Some(slot) = entry else { continue };
            if slot.is_member || slot.flows > 0 || is_unowned(slot.raw.service) {
                continue;
            }
            counted.push((slot.raw.service, slot.decided, maps.server_counters(index)?));
            maps.set_server(index, &RawServer::default())?;
            *entry = None;
            self.free.push(index);
        }
        Ok(counted)
    }

    /// Returns the addresses of all servers, each with its number, or of those alone without a route.
    pub(super) fn addresses(&self, without_route: bool) -> Vec<(u32, IpAddr)> {
        let slots = self.iter().filter(|(_, slot)| !without_route || slot.raw.ifindex == 0);
        slots.map(|(index, slot)| (index, slot.raw.address().ip())).collect()
    }

    pub(super) fn count_flow(&mut self, index: u32) {
        if let Some(slot) = self.get_mut(index) {
            slot.flows += 1;
        }
    }

    pub(super) fn uncount_flow(&mut self, index: u32) {
        if let Some(slot) = self.get_mut(index) {
            slot.flows = slot.flows.saturating_sub(1);
        }
    }
}
