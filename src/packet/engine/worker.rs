//! The thread of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::command::{CommandSender, EngineCommand};
use super::flow_table::{FlowRecord, FlowTable, timeout};
use super::server_slots::ServerSlots;
use super::tap::{MAX_FRAME_LEN, Tap};
use super::virtual_service::{VirtualService, explain_new_connections};
use crate::backend::BackendId;
use crate::balancer::PickError;
use crate::engine::{EngineDrainReport, EngineEntry, EngineRequest, NewConnections, SharedService};
use crate::packet::error::PacketError;
use crate::packet::layout::{
    MAX_SERVICES, RawControl, RawEvent, RawServiceKey, RawTuple, event_kind, flow_state,
};
use crate::packet::maps::PacketMaps;
use crate::packet::netlink::{RouteSocket, RouteToServer};
use crate::packet::program::{PacketProgram, detach};
use crate::packet::settings::PacketSettings;
use crate::packet::statistics::PacketStatistics;
use crate::sync::{Mutex, lock};

/// The longest time between two signs of life.
const MAX_ALIVE_INTERVAL: Duration = Duration::from_millis(200);
/// How often counters are read, and devices and routes looked for.
const AUDIT_INTERVAL: Duration = Duration::from_secs(1);
/// Services that an earlier process left and nobody has claimed after this time get no new flows.
const CLAIM_TIME: Duration = Duration::from_secs(10);
/// What the program counts decisions in: 2^24 ns.
const WINDOWS_PER_SECOND: u32 = (1_000_000_000_u64 >> 24) as u32;

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "the thread is a shell: it waits for real time")]
fn now() -> Instant {
    Instant::now()
}

/// The clock of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramClock;

impl ProgramClock {
    /// Returns the nanoseconds of the monotonic clock.
    pub(super) fn now(self) -> u64 {
        let time = clock_gettime(ClockId::Monotonic);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    }
}

/// New flows that the schedulers refused, by reason, since it was last said.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u64,
    last: Option<PickError>,
}

impl Refusals {
    pub(super) fn count(&mut self, error: PickError) {
        self.count += 1;
        self.last = Some(error);
    }
}

/// The state of the thread.
pub(super) struct EngineWorker {
    pub(super) maps: PacketMaps,
    pub(super) program: PacketProgram,
    pub(super) tap: Tap,
    pub(super) netlink: RouteSocket,
    pub(super) settings: PacketSettings,
    pub(super) commands: CommandSender,
    pub(super) received: Receiver<EngineCommand>,
    pub(super) services: BTreeMap<RawServiceKey, VirtualService>,
    pub(super) servers: ServerSlots,
    pub(super) flows: FlowTable,
    pub(super) clock: ProgramClock,
    pub(super) refusals: Refusals,
    /// Services that an earlier process left.
    found: BTreeMap<RawServiceKey, u32>,
    /// The error that was logged last.
    said: String,
    published: Arc<Mutex<PublishedState>>,
}

/// What the thread tells of itself.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    pub(super) statistics: PacketStatistics,
    pub(super) devices: Vec<String>,
}

impl EngineWorker {
    /// Reads what an earlier process left.
    pub(super) fn new(
        (program, maps): (PacketProgram, PacketMaps),
        tap: Tap,
        netlink: RouteSocket,
        settings: PacketSettings,
        (commands, received): (CommandSender, Receiver<EngineCommand>),
    ) -> Result<Self, PacketError> {
        let found = maps.services()?.into_iter().filter(|(key, _)| key.protocol != 0);
        let found = found.map(|(key, service)| (key, service.id)).collect();
        let mut servers = ServerSlots::read(&maps)?;
        let mut flows = FlowTable::default();
        for entry in maps.flows() {
            let (tuple, flow) = entry?;
            if flow.state & flow_state::TO_CLIENT == 0 {
                flows.insert(tuple, FlowRecord::found(&flow), &mut servers, &settings);
            }
        }
        let mut this = Self {
            maps,
            program,
            tap,
            netlink,
            settings,
            commands,
            received,
            services: BTreeMap::new(),
            servers,
            flows,
            clock: ProgramClock,
            refusals: Refusals::default(),
            found,
            said: String::new(),
            published: Arc::default(),
        };
        this.follow_devices()?;
        // Before the first service: its first flow is decided by the scheduler already.
        this.tell_alive();
        Ok(this)
    }

    /// Returns what the thread will tell of itself.
    pub(super) fn published(&self) -> Arc<Mutex<PublishedState>> {
        Arc::clone(&self.published)
    }

    /// Runs commands, follows the sets and decides flows until the engine ends.
    pub(super) fn run(mut self) {
        let waker = Waker::from(Arc::clone(self.commands.waker()));
        let mut buffer = vec![0; MAX_FRAME_LEN];
        let started_at = now();
        let alive_interval = MAX_ALIVE_INTERVAL.min(self.settings.alive_for / 5);
        let (mut next_alive, mut next_audit) = (started_at, started_at);
        let mut has_more = false;
        loop {
            let wait = if has_more { Duration::ZERO } else { next_alive - now().min(next_alive) };
            self.wait(wait);
            if self.commands.waker().clear() {
                self.follow_sets(&waker);
            }
            while let Ok(command) = self.received.try_recv() {
                if matches!(command, EngineCommand::Stop) {
                    return self.end();
                }
                self.run_command(command, &waker);
            }
            let now = now();
            self.read_events(now);
            has_more = match self.decide_waiting(&mut buffer, now) {
                Ok(has_more) => has_more,
                Err(error) => {
                    self.say(&error.to_string());
                    false
                }
            };
            if now >= next_alive {
                self.tell_alive();
                next_alive = now + alive_interval;
                has_more |= self.check_flows();
                self.end_drained(now);
            }
            if now >= next_audit {
                self.audit(now - started_at >= CLAIM_TIME);
                next_audit = now + AUDIT_INTERVAL;
            }
        }
    }

    fn wait(&self, wait: Duration) {
        let events = self.maps.events_fd();
        let mut fds = [
            PollFd::new(self.commands.waker().event(), PollFlags::IN),
            PollFd::new(&self.tap, PollFlags::IN),
            PollFd::from_borrowed_fd(events, PollFlags::IN),
        ];
        let wait = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(1),
            tv_nsec: wait.subsec_nanos().into(),
        };
        // A signal wakes it early, which does no harm.
        let _ = poll(&mut fds, Some(&wait));
    }

    /// Logs what failed, once for as long as it is the same.
    pub(super) fn say(&mut self, failure: &str) {
        if failure != self.said {
            tracing::error!("engine packet: {failure}");
            failure.clone_into(&mut self.said);
        }
    }

    fn check<T>(&mut self, result: Result<T, PacketError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(&error.to_string());
                None
            }
        }
    }

    fn run_command(&mut self, command: EngineCommand, waker: &Waker) {
        match command {
            EngineCommand::Begin { key, request, owner, reply } => {
                let result = self.begin(key, request, owner, waker);
                // The owner waits for the reply.
                let _ = reply.send(result);
            }
            EngineCommand::Drain { key, owner, within, new } => {
                self.drain(key, &owner, within, new);
            }
            EngineCommand::HandOver(key, owner) => {
                if self.is_owner(&key, &owner)
                    && let Some(service) = self.services.remove(&key)
                {
                    self.found.insert(key, service.id);
                }
                owner.finish(EngineDrainReport::default());
            }
            EngineCommand::Entries { key, limit, reply } => {
                // Who asked may have given up.
                let _ = reply.send(self.entries(&key, limit));
            }
            EngineCommand::Stop => {}
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
        let replaced = self.services.remove(&key);
        let known = replaced.as_ref().map(|service| service.id);
        let id = match known.or_else(|| self.found.get(&key).copied()) {
            Some(id) => id,
            None => self.free_service_id()?,
        };
        let mut service = VirtualService::new(key, id, request, owner)
            .map_err(|error| PacketError::Map { map: "services", reason: error.to_string() })?;
        if let Some(replaced) = replaced {
            service.retired = replaced.retired;
            replaced.owner.finish(EngineDrainReport::default());
        }
        // Registers the waker.
        service.has_changed(waker);
        service.reconcile(&mut self.maps, &mut self.servers)?;
        self.found.remove(&key);
        let servers = &self.servers;
        let lease = |server| service.lease_of(servers.get(server)?);
        self.flows.replace_leases(id, lease, &self.maps);
        self.services.insert(key, service);
        self.follow_routes()
    }

    fn free_service_id(&self) -> Result<u32, PacketError> {
        let used = self.services.values().map(|service| service.id);
        let used: BTreeSet<_> = used.chain(self.found.values().copied()).collect();
        (0..MAX_SERVICES).find(|id| !used.contains(id) && self.flows.count_of(*id) == 0).ok_or_else(
            || PacketError::Map {
                map: "services",
                reason: format!("there are more than {MAX_SERVICES} services"),
            },
        )
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
        let flows = self.flows.count_of(service.id);
        let result = service.begin_drain(within, now(), flows, &mut self.maps);
        self.check(result);
        self.forget_address(key);
        self.end_drained(now());
    }

    /// Tells the program that an address has no services, if it has none.
    fn forget_address(&mut self, key: RawServiceKey) {
        let address = key.of_address();
        let has_others = self
            .services
            .values()
            .any(|service| service.drain.is_none() && service.key.of_address() == address);
        if !has_others && !self.found.keys().any(|found| found.of_address() == address) {
            let result = self.maps.remove_service(&address);
            self.check(result);
        }
    }

    /// Ends the services whose flows have ended, or whose time has come.
    fn end_drained(&mut self, now: Instant) {
        let is_over = |service: &VirtualService| {
            let Some(drain) = &service.drain else { return false };
            self.flows.count_of(service.id) == 0
                || drain.deadline.is_some_and(|deadline| now >= deadline)
        };
        let over = self.services.values().filter(|service| is_over(service));
        for key in over.map(|service| service.key).collect::<Vec<_>>() {
            let Some(mut service) = self.services.remove(&key) else { continue };
            let id = service.id;
            let is_cut = |record: &FlowRecord| record.service == id;
            let open = self.flows.iter().filter(|(_, it)| it.service == id && it.lease.is_some());
            let open = open.count() as u64;
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

    /// Applies what has changed in the sets.
    fn follow_sets(&mut self, waker: &Waker) {
        let mut failures = Vec::new();
        let mut cut = Vec::new();
        for service in self.services.values_mut() {
            if service.has_changed(waker) {
                let result = service.reconcile(&mut self.maps, &mut self.servers);
                failures.extend(result.err());
                cut.extend(service.cut_servers());
            }
        }
        if !cut.is_empty() {
            let is_cut = |record: &FlowRecord| cut.contains(&record.server);
            let result = self.flows.cut(is_cut, &mut self.maps, &mut self.servers);
            failures.extend(result.err());
        }
        failures.extend(self.follow_routes().err());
        for failure in failures {
            self.say(&failure.to_string());
        }
    }

    fn tell_alive(&mut self) {
        let alive_for = u64::try_from(self.settings.alive_for.as_nanos()).unwrap_or(u64::MAX);
        let control = RawControl {
            alive_until: self.clock.now().saturating_add(alive_for),
            tap_ifindex: self.tap.device.index,
            upcalls_per_window: (self.settings.decisions_per_second / WINDOWS_PER_SECOND).max(1),
        };
        let result = self.maps.set_control(&control);
        self.check(result);
    }

    fn read_events(&mut self, now: Instant) {
        while let Some(event) = self.maps.next_event() {
            match event.kind {
                event_kind::DECIDED => self.adopt(&event),
                event_kind::ANSWERED => self.flows.answered(&event, now),
                event_kind::ENDED => self.flows.ended(&event),
                _ => {}
            }
        }
    }

    /// Takes a flow that a table has decided.
    fn adopt(&mut self, event: &RawEvent) {
        let mut services = self.services.values();
        let lease = services
            .find(|service| service.id == event.service)
            .and_then(|service| service.lease_of(self.servers.get(event.server)?));
        let record = FlowRecord::new(lease, event.server, event.service, event.at);
        self.flows.insert(event.tuple, record, &mut self.servers, &self.settings);
    }

    fn check_flows(&mut self) -> bool {
        let now = self.clock.now();
        let (maps, servers) = (&mut self.maps, &mut self.servers);
        let result = self.flows.check_due(now, maps, servers, &self.settings);
        self.check(result).unwrap_or_default()
    }

    /// Publishes counters, and looks for what has changed in the network namespace.
    fn audit(&mut self, is_claim_time_over: bool) {
        if is_claim_time_over {
            for key in std::mem::take(&mut self.found).into_keys() {
                let result = self.maps.remove_service(&key);
                self.check(result);
                self.forget_address(key);
            }
        }
        let result = self.follow_devices().and_then(|()| self.follow_routes());
        let is_well = self.check(result).is_some();
        let reclaimed = self.servers.reclaim(&mut self.maps);
        for (service, decided, raw) in self.check(reclaimed).unwrap_or_default() {
            let service = self.services.values_mut().find(|it| it.id == service);
            if let Some(service) = service {
                service.retired.connections += decided + raw.connections;
                service.retired.bytes_in += raw.bytes_in;
                service.retired.bytes_out += raw.bytes_out;
            }
        }
        let statistics = PacketStatistics::read(&self.maps);
        if let Some(statistics) = self.check(statistics) {
            let devices = self.program.devices().map(str::to_owned).collect();
            *lock(&self.published) = PublishedState { statistics, devices };
        }
        let results = self
            .services
            .values()
            .map(|service| service.publish_counters(&self.maps, &self.servers));
        let result = results.collect::<Result<Vec<_>, _>>();
        if self.check(result).is_some() && is_well {
            self.said.clear();
        }
        if let Some(error) = self.refusals.last.take() {
            let count = std::mem::take(&mut self.refusals.count);
            tracing::warn!("engine packet: {count} new flows were refused; the last: {error}");
        }
    }

    /// Attaches the program to devices that have appeared.
    pub(super) fn follow_devices(&mut self) -> Result<(), PacketError> {
        let present = self.netlink.devices().map_err(|source| PacketError::Netlink { source })?;
        self.program.retain_devices(|index, name| {
            present.iter().any(|device| device.index == index && device.name == name)
        });
        let chosen = &self.settings.devices;
        let tap = self.tap.device.index;
        let mut failure = Ok(());
        for device in present {
            let is_chosen = chosen.is_empty() || chosen.contains(&device.name);
            if device.index == tap || (device.is_ethernet && is_chosen) {
                // The others are attached all the same.
                failure = failure.and(self.program.attach(device.index, &device.name));
            }
        }
        failure
    }

    /// Reads the route to each server.
    fn follow_routes(&mut self) -> Result<(), PacketError> {
        let mut known = BTreeMap::new();
        for (index, address) in self.servers.addresses() {
            let netlink = &mut self.netlink;
            let route = *known.entry(address).or_insert_with(|| match netlink.route(address) {
                Ok(RouteToServer::Device(device)) => device,
                // The program does not carry packets to this machine's own addresses.
                Ok(RouteToServer::Local) | Err(_) => 0,
            });
            if self.servers.get(index).is_some_and(|slot| slot.raw.ifindex != route) {
                if route == 0 {
                    tracing::warn!("engine packet: there is no route to {address}");
                }
                self.servers.update(&mut self.maps, index, |raw| raw.ifindex = route)?;
            }
        }
        Ok(())
    }

    fn entries(&self, key: &RawServiceKey, limit: usize) -> Vec<EngineEntry> {
        let Some(service) = self.services.get(key) else { return Vec::new() };
        let flows = self.flows.iter().filter(|(_, record)| record.service == service.id);
        let entry = |(tuple, record): (&RawTuple, &FlowRecord)| {
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

    /// Leaves what was handed over to a successor, and removes everything if there is nothing.
    fn end(mut self) {
        let is_empty = self.services.is_empty() && self.found.is_empty();
        let control = RawControl::default();
        // Without a director a table decides.
        let result = self.maps.set_control(&control);
        self.check(result);
        if is_empty {
            let folder = self.settings.pin_folder.clone();
            let result = detach(&folder, self.program.devices());
            self.check(result);
        }
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
