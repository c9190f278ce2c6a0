//! What owners of services ask for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::command::PacketCommand;
use super::flow_table::{PacketFlow, timeout};
use super::left_state::UnownedService;
use super::virtual_service::{PacketVirtualService, explain_new_connections};
use super::worker::{PacketWorker, now};
use crate::backend::BackendId;
use crate::engine::{EngineDrainReport, EngineEntry, EngineRequest, NewConnections, SharedService};
use crate::packet::error::PacketError;
use crate::packet::layout::{MAX_SERVICES, RawServiceKey, RawTuple, flow_state};

impl PacketWorker {
    pub(super) fn run_command(&mut self, command: PacketCommand, waker: &Waker) {
        match command {
            PacketCommand::Begin { key, request, owner, reply } => {
                let result = self.begin(key, request, owner, waker);
                // The owner waits for the reply.
                let _ = reply.send(result);
            }
            PacketCommand::Drain { key, owner, within, new } => {
                self.drain(key, &owner, within, new);
            }
            PacketCommand::HandOver(key, owner) => {
                if self.is_owner(&key, &owner)
                    && let Some(service) = self.services.remove(&key)
                {
                    if self.leaves_to_table() {
                        let result = service.hand_over(&mut self.maps);
                        self.check(result);
                    }
                    self.servers.disown(service.server_indexes());
                    let left = UnownedService { id: service.id, is_handed_over: true };
                    self.unowned.insert(key, left);
                }
                owner.finish(EngineDrainReport::default());
            }
            PacketCommand::Entries { key, limit, reply } => {
                // Who asked may have given up.
                let _ = reply.send(self.entries(&key, limit));
            }
            PacketCommand::Stop => {}
        }
    }

    fn is_owner(&self, key: &RawServiceKey, owner: &Arc<SharedService>) -> bool {
        self.services.get(key).is_some_and(|service| Arc::ptr_eq(&service.owner, owner))
    }

    fn begin(
        &mut self,
        key: RawServiceKey,
        request: Box<EngineRequest>,
        owner: Arc<SharedService>,
        waker: &Waker,
    ) -> Result<(), PacketError> {
        self.succeed(now())?;
        let replaced = self.services.remove(&key);
        let known = replaced.as_ref().map(|service| service.id);
        let id = match known.or_else(|| self.unowned.get(&key).map(|service| service.id)) {
            Some(id) => id,
            None => self.free_service_id()?,
        };
        let mut service = PacketVirtualService::new(key, id, request, owner)
            .map_err(|error| PacketError::Map { map: "services", reason: error.to_string() })?;
        if let Some(replaced) = replaced {
            service.inherit(&replaced, now());
            // Those that the new one has, too, are assigned to it.
            self.servers.disown(replaced.server_indexes());
            replaced.owner.finish(EngineDrainReport::default());
        }
        // Registers the waker.
        service.has_changed(waker);
        service.reconcile(&mut self.maps, &mut self.servers)?;
        self.unowned.remove(&key);
        self.flows.renew_leases(&service, &self.servers, &self.maps);
        self.services.insert(key, service);
        // Before the service's first flow.
        self.become_alive();
        self.follow_routes(true)
    }

    fn free_service_id(&self) -> Result<u32, PacketError> {
        let used = self.services.values().map(|service| service.id);
        let used: BTreeSet<_> =
            used.chain(self.unowned.values().map(|service| service.id)).collect();
        (0..MAX_SERVICES)
            .find(|id| !used.contains(id) && self.flows.count_open(*id) == 0)
            .ok_or_else(|| PacketError::Map {
                map: "services",
                reason: format!("there are more than {MAX_SERVICES} services"),
            })
    }

    fn drain(
        &mut self,
        key: RawServiceKey,
        owner: &Arc<SharedService>,
        within: Duration,
        new: NewConnections,
    ) {
        if !self.is_owner(&key, owner) {
            return owner.finish(EngineDrainReport::default());
        }
        let Some(service) = self.services.get_mut(&key) else { return };
        let name = &service.request.service;
        tracing::debug!("service {name} drains; new flows: {}", explain_new_connections(new));
        let flows = self.flows.count_open(service.id);
        let result = service.begin_drain(within, now(), flows, &mut self.maps);
        self.check(result);
        self.forget_address(key);
        self.end_drained(now());
    }

    /// Tells the program that an address has no services, if it has none.
    pub(super) fn forget_address(&mut self, key: RawServiceKey) {
        let address = key.of_address();
        let has_others = self
            .services
            .values()
            .any(|service| service.drain.is_none() && service.key.of_address() == address);
        if !has_others && !self.unowned.keys().any(|unowned| unowned.of_address() == address) {
            let result = self.maps.remove_service(&address);
            self.check(result);
        }
    }

    /// Ends the services whose flows have ended, or whose time has come.
    pub(super) fn end_drained(&mut self, now: Instant) {
        let is_over = |service: &PacketVirtualService| {
            let Some(drain) = &service.drain else { return false };
            self.flows.count_open(service.id) == 0
                || drain.deadline.is_some_and(|deadline| now >= deadline)
        };
        let over = self.services.values().filter(|service| is_over(service));
        for key in over.map(|service| service.key).collect::<Vec<_>>() {
            let Some(mut service) = self.services.remove(&key) else { continue };
            let id = service.id;
            let is_cut = |record: &PacketFlow| record.service == id;
            let open = self.flows.count_open(id);
            let result = self.flows.cut(is_cut, &mut self.maps, &mut self.servers);
            self.check(result);
            let result = service.release_servers(&mut self.maps, &mut self.servers);
            self.check(result);
            let mut report = EngineDrainReport::default();
            let begun = service.drain.as_ref().map_or(0, |drain| drain.flows);
            (report.finished, report.cut) = (begun.saturating_sub(open), open);
            service.owner.finish(report);
        }
    }

    fn entries(&self, key: &RawServiceKey, limit: usize) -> Vec<EngineEntry> {
        let Some(service) = self.services.get(key) else { return Vec::new() };
        let flows = self.flows.iter().filter(|(_, record)| record.service == service.id);
        let entry = |(tuple, record): (&RawTuple, &PacketFlow)| {
            let flow = self.maps.flow(tuple).ok()??;
            let server = self.servers.get(record.server);
            let backend: Option<BackendId> = server.and_then(|slot| slot.backend.clone());
            let destination = flow.rewritten(tuple.protocol).destination();
            let mut entry = EngineEntry::new(tuple.source(), tuple.destination(), destination);
            entry.backend = backend;
            state_name(flow.state).clone_into(&mut entry.state);
            let quiet = Duration::from_nanos(self.clock.now().saturating_sub(flow.seen_at));
            entry.expires_in = timeout(tuple, &flow, &self.settings).saturating_sub(quiet);
            Some(entry)
        };
        flows.filter_map(entry).take(limit).collect()
    }
}

/// Returns the name of a flow's state.
fn state_name(state: u32) -> &'static str {
    match state {
        state if state & flow_state::RESETS != 0 => "RESET",
        state if state & flow_state::FINS == flow_state::FINS => "CLOSED",
        state if state & flow_state::FINS != 0 => "CLOSING",
        state if state & flow_state::ANSWERED != 0 => "ESTABLISHED",
        _ => "BEGUN",
    }
}
