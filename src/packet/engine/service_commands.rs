//! What owners of services ask for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::command::PacketCommand;
use super::flow::PacketFlow;
use super::left_state::UnownedService;
use super::virtual_service::PacketVirtualService;
use super::worker::{PacketWorker, now};
use crate::engine::{EngineDrainReport, EngineRequest, SharedService};
use crate::packet::error::PacketError;
use crate::packet::layout::{MAX_SERVICES, RawServiceKey};

impl PacketWorker {
    pub(super) fn run_command(&mut self, command: PacketCommand, waker: &Waker) {
        match command {
            PacketCommand::Begin { key, request, owner, reply } => {
                let result = self.begin(key, request, owner, waker);
                // The owner waits for the reply.
                let _ = reply.send(result);
            }
            PacketCommand::Drain { key, owner, within } => {
                self.drain(key, &owner, within);
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
                    service.forget_check_marks();
                    // The rules stay for the successor.
                }
                owner.finish(EngineDrainReport::default());
            }
            PacketCommand::Entries { key, kind, limit, reply } => {
                // Flows that a table has decided a moment ago are listed, too.
                self.read_all_events();
                // Who asked may have given up.
                let _ = reply.send(self.entries(&key, kind, limit));
            }
            PacketCommand::FeedFlows { reply } => {
                let _ = reply.send(self.add_flow_feed());
            }
            PacketCommand::RestoreFlows { batch, reply } => {
                let _ = reply.send(self.restore_flows(&batch));
            }
            #[cfg(test)]
            PacketCommand::Run(run) => run(self),
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
        let known = self.services.get(&key).map(|service| service.id);
        let id = match known.or_else(|| self.unowned.get(&key).map(|service| service.id)) {
            Some(id) => id,
            None => self.free_service_id()?,
        };
        let mut service = PacketVirtualService::new(key, id, request, owner)
            .map_err(|error| PacketError::Map { map: "services", reason: error.to_string() })?;
        service.is_elsewhere = match self.services.get(&key) {
            // What has changed since is followed below.
            Some(replaced) => replaced.is_elsewhere,
            None => self.is_elsewhere(key.address().ip()),
        };
        if service.is_elsewhere {
            let (name, address) = (&service.request.service, key.address().ip());
            tracing::info!(
                "service {name}: engine packet: this machine does not have the address {address}: new flows \
                 are dropped until it has"
            );
        }
        if let Some(replaced) = self.services.get(&key) {
            service.inherit(replaced, now());
            // Those that the new one has, too, are assigned to it.
            self.servers.disown(replaced.server_indexes());
        }
        // Registers the waker.
        service.has_changed(waker);
        if let Err(error) = service.reconcile(&mut self.maps, &mut self.servers) {
            // The one before goes on.
            if let Some(replaced) = self.services.get_mut(&key) {
                let _ = replaced.reconcile(&mut self.maps, &mut self.servers);
            }
            return Err(error);
        }
        self.servers.retire_left(&mut self.maps, id)?;
        self.unowned.remove(&key);
        self.flows.record_ends(service.id, service.request.on_flow_end.is_some());
        self.flows.renew_leases(&service, &self.servers, &self.maps);
        if let Some(replaced) = self.services.insert(key, service) {
            replaced.owner.finish(EngineDrainReport::default());
        }
        // Before the service's first flow.
        self.become_alive();
        self.follow_addresses(now())?;
        self.restore_unknown()?;
        self.follow_routes(true)?;
        self.follow_checks();
        Ok(())
    }

    fn free_service_id(&self) -> Result<u32, PacketError> {
        let used = self.services.values().map(|service| service.id);
        let used: BTreeSet<_> =
            used.chain(self.unowned.values().map(|service| service.id)).collect();
        // What the servers of one that has ended have counted is not the next one's.
        let left: BTreeSet<_> = self.servers.iter().map(|(_, slot)| slot.raw.service).collect();
        let is_free =
            |id: &u32| !used.contains(id) && !left.contains(id) && self.flows.count_open(*id) == 0;
        (0..MAX_SERVICES).find(is_free).ok_or_else(|| PacketError::Map {
            map: "services",
            reason: format!("there are more than {MAX_SERVICES} services"),
        })
    }

    fn drain(&mut self, key: RawServiceKey, owner: &Arc<SharedService>, within: Duration) {
        if !self.is_owner(&key, owner) {
            return owner.finish(EngineDrainReport::default());
        }
        // The address may have been given away before the drain, and flows that go on elsewhere are not ended.
        let result = self.follow_addresses(now());
        self.check(result);
        let Some(service) = self.services.get_mut(&key) else { return };
        let id = service.id;
        let result = service.begin_drain(within, now(), &mut self.maps);
        self.check(result);
        // Flows that a table has decided a moment ago are drained, too.
        self.read_all_events();
        let result = self.drop_drained_elsewhere();
        self.check(result);
        let flows = self.flows.count_open(id);
        if let Some(drain) = self.services.get_mut(&key).and_then(|it| it.drain.as_mut()) {
            drain.flows.get_or_insert(flows);
        }
        self.forget_address(key);
        if let Some(service) = self.services.get(&key) {
            service.forget_check_marks();
        }
        self.follow_checks();
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
            let Some(id) = self.services.get(&key).map(|service| service.id) else { continue };
            // The client of a flow that has ended may still get what the server sends.
            let is_cut = |record: &PacketFlow| record.service == id && !record.is_over;
            let open = self.flows.count_open(id);
            let at = self.clock.now();
            let result = self.flows.cut(is_cut, at, &mut self.maps, &mut self.servers);
            self.check(result);
            self.report_ends();
            let Some(mut service) = self.services.remove(&key) else { continue };
            let result = service.release_servers(&mut self.maps, &mut self.servers);
            self.check(result);
            let mut report = EngineDrainReport::default();
            let begun = service.drain.as_ref().and_then(|drain| drain.flows).unwrap_or_default();
            (report.finished, report.cut) = (begun.saturating_sub(open), open);
            service.owner.finish(report);
        }
    }
}
