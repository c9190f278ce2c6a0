//! The counters of a service.

use std::collections::BTreeMap;

use super::server_slots::ServerSlot;
use super::virtual_service::PacketVirtualService;
use crate::engine::{EngineCounters, EngineServerCounters};
use crate::packet::error::PacketError;
use crate::packet::maps::PacketMaps;

impl PacketVirtualService {
    /// Reads the counters of all servers of the service, and publishes them.
    pub(super) fn publish_counters(
        &self,
        maps: &PacketMaps,
        servers: &[(u32, &ServerSlot)],
    ) -> Result<(), PacketError> {
        let mut sum = EngineCounters {
            connections: self.retired.connections,
            bytes_to_servers: self.retired.bytes_in,
            bytes_to_clients: Some(self.retired.bytes_out),
            servers: BTreeMap::new(),
        };
        let snapshot = self.subscription.snapshot();
        for &(index, slot) in servers {
            let raw = maps.server_counters(index)?;
            let connections = slot.decided + raw.connections;
            sum.connections += connections;
            sum.bytes_to_servers += raw.bytes_in;
            // By direct routing the answers are not seen.
            let bytes_out = (!slot.raw.is_direct()).then_some(raw.bytes_out);
            sum.bytes_to_clients =
                sum.bytes_to_clients.zip(bytes_out).map(|(sum, bytes)| sum + bytes);
            let Some(id) = slot.backend.as_ref().filter(|id| self.servers.contains_key(*id)) else {
                continue;
            };
            let load = snapshot.find(id).map(|backend| backend.load()).unwrap_or_default();
            // A backend whose method was changed has flows by the number that it had before, too.
            let known = sum.servers.get(id).copied();
            let known = known.unwrap_or(EngineServerCounters {
                bytes_out: Some(0),
                active: load.active,
                inactive: load.inactive,
                ..EngineServerCounters::default()
            });
            let counters = EngineServerCounters {
                connections: known.connections + connections,
                bytes_in: known.bytes_in + raw.bytes_in,
                bytes_out: known.bytes_out.zip(bytes_out).map(|(known, bytes)| known + bytes),
                ..known
            };
            sum.servers.insert(id.clone(), counters);
        }
        self.owner.publish(sum);
        Ok(())
    }
}
