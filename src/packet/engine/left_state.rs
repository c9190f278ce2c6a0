//! What earlier processes have left, and how this one stands to others.

use std::collections::BTreeMap;
use std::time::Instant;

use super::flow::PacketFlow;
use super::flow_table::PacketFlowTable;
use super::server_slots::ServerSlots;
use crate::packet::error::PacketError;
use crate::packet::layout::{RawService, RawServiceKey};
use crate::packet::maps::PacketMaps;
use crate::packet::settings::PacketSettings;

/// A service that the program has and nobody owns.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnownedService {
    pub(super) id: u32,
    /// Whether its owner has left it to a successor. If not, an earlier process has left it, and it gets no new
    /// flows when nobody claims it in time.
    pub(super) is_handed_over: bool,
}

/// What earlier processes have left in the maps.
#[derive(Debug)]
pub(super) struct LeftState {
    pub(super) unowned: BTreeMap<RawServiceKey, UnownedService>,
    pub(super) servers: ServerSlots,
    pub(super) flows: PacketFlowTable,
}

impl LeftState {
    pub(super) fn read(maps: &PacketMaps, settings: &PacketSettings) -> Result<Self, PacketError> {
        let services = maps.services()?.into_iter().filter(|(key, _)| key.protocol != 0);
        let left = |service: RawService| UnownedService { id: service.id, is_handed_over: false };
        let unowned = services.map(|(key, service)| (key, left(service))).collect();
        let mut servers = ServerSlots::read(maps)?;
        let mut flows = PacketFlowTable::default();
        for entry in maps.flows() {
            let flow = entry?;
            if !flow.is_to_client() {
                let service = servers.service_of(flow.server, maps)?;
                let record = PacketFlow::found(&flow, service);
                flows.insert(flow.tuple, record, &mut servers, settings);
            }
        }
        Ok(Self { unowned, servers, flows })
    }
}

/// How this process stands to others.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// Whether this process has claimed a service.
    pub(super) has_begun: bool,
    /// Whether the program asks another process.
    pub(super) is_superseded: bool,
    /// When flows are looked for that another process has decided meanwhile.
    pub(super) search_at: Option<Instant>,
}
