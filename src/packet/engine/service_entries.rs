//! What the engine tells of a service's flows and clients.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::flow::{PacketFlow, timeout};
use super::virtual_service::PacketVirtualService;
use super::worker::{PacketWorker, now};
use crate::backend::BackendId;
use crate::balancer::SavedTemplate;
use crate::engine::{EngineEntry, EngineEntryKind, EngineEntryOrigin};
use crate::packet::flow_direction::FlowDirection;
use crate::packet::layout::{RawServiceKey, RawTuple, flow_state};

impl PacketWorker {
    pub(super) fn entries(
        &self,
        key: &RawServiceKey,
        kind: EngineEntryKind,
        limit: usize,
    ) -> Vec<EngineEntry> {
        let Some(service) = self.services.get(key) else { return Vec::new() };
        match kind {
            EngineEntryKind::Connection => self.flow_entries(service, limit),
            EngineEntryKind::PersistentClient => client_entries(service, now(), limit),
        }
    }

    fn flow_entries(&self, service: &PacketVirtualService, limit: usize) -> Vec<EngineEntry> {
        let flows = self.flows.iter().filter(|(_, record)| record.service == service.id);
        let entry = |(tuple, record): (&RawTuple, &PacketFlow)| {
            let flow = self.maps.flow(tuple).ok()??;
            let server = self.servers.get(record.server);
            let backend: Option<BackendId> = server.and_then(|slot| slot.backend.clone());
            let destination = flow.rewritten.destination();
            let mut entry = EngineEntry::new(tuple.source(), tuple.destination(), destination);
            entry.backend = backend;
            if record.round.is_some() {
                entry.origin = EngineEntryOrigin::Sync;
            }
            state_name(&flow).clone_into(&mut entry.state);
            let seen_at = flow.seen_at.max(self.flows.confirmed_at(tuple));
            let quiet = Duration::from_nanos(self.clock.now().saturating_sub(seen_at));
            entry.expires_in = timeout(&flow, &self.settings).saturating_sub(quiet);
            Some(entry)
        };
        flows.filter_map(entry).take(limit).collect()
    }
}

/// Returns the clients that return to a server; none if the table of them is the owner's, who has them.
fn client_entries(service: &PacketVirtualService, now: Instant, limit: usize) -> Vec<EngineEntry> {
    let request = &service.request;
    let Some(table) = service.persistence.as_ref().filter(|_| request.persistence_table.is_none())
    else {
        return Vec::new();
    };
    let entry = |template: SavedTemplate| {
        let client = SocketAddr::new(template.network, 0);
        let backend = request.balancer.backend_set().get(&template.backend)?;
        let server = request.destination_address(*backend.target());
        let mut entry = EngineEntry::new(client, service.key.address(), server);
        entry.backend = Some(template.backend);
        entry.expires_in = template.remaining;
        Some(entry)
    };
    table.export(now, None).into_iter().filter_map(entry).take(limit).collect()
}

/// Returns the name of a flow's state.
fn state_name(flow: &FlowDirection) -> &'static str {
    let has = |bits| flow.state & bits != 0;
    match () {
        () if has(flow_state::RESETS) => "RESET",
        () if flow.is_over() => "CLOSED",
        () if has(flow_state::FINS) => "CLOSING",
        () if has(flow_state::ANSWERED) => "ESTABLISHED",
        () => "BEGUN",
    }
}
