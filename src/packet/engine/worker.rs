//! The thread of the engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::Waker;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use super::command::{CommandSender, PacketCommand};
use super::flow::PacketFlow;
use super::flow_follower::FlowFollower;
use super::flow_table::PacketFlowTable;
use super::flow_walk::FlowWalk;
use super::followed_engine::FollowedEngine;
use super::left_state::{LeftState, Succession, UnownedService};
use super::server_slots::ServerSlots;
use super::tap::{MAX_FRAME_LEN, Tap};
use super::virtual_service::PacketVirtualService;
use crate::balancer::PickError;
use crate::packet::check_program::CheckProgram;
use crate::packet::error::PacketError;
use crate::packet::layout::{RawControl, RawServiceKey, event_kind};
use crate::packet::maps::PacketMaps;
use crate::packet::program::{PacketProgram, detach};
use crate::packet::settings::PacketSettings;
use crate::packet::statistics::PacketStatistics;
use crate::rtnetlink::{RtnetlinkMonitor, RtnetlinkSocket};
use crate::sync::Mutex;

/// The events that are read before other work goes on.
const MAX_EVENTS: usize = 4096;
/// So many times as many are all that there is room for.
const MAX_EVENT_READS: usize = 4;
/// The packets that are decided before other work goes on.
const MAX_BATCH: usize = 256;
/// When packets come after each other in less than this, more than one is looked for at a time. Else to look for a
/// second one costs each new flow as much as to look for it later costs the next.
const BURST_INTERVAL: Duration = Duration::from_micros(100);
/// The shortest and the longest time between two signs of life.
const MIN_ALIVE_INTERVAL: Duration = Duration::from_millis(10);
const MAX_ALIVE_INTERVAL: Duration = Duration::from_millis(200);
/// How often counters are read, and devices and routes looked for.
const AUDIT_INTERVAL: Duration = Duration::from_secs(1);
/// Addresses are looked at once more after they have changed.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Services that an earlier process left and nobody has claimed after this time get no new flows.
const CLAIM_TIME: Duration = Duration::from_secs(10);
/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "the thread is a shell: it waits for real time")]
pub(super) fn now() -> Instant {
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

    /// Returns the number since the last call, and the last one.
    pub(super) fn read(&mut self) -> Option<(u64, PickError)> {
        let Self { count, last } = std::mem::take(self);
        Some((count, last?))
    }
}

/// The state of the thread.
pub(super) struct PacketWorker {
    pub(super) maps: PacketMaps,
    pub(super) program: PacketProgram,
    pub(super) tap: Tap,
    pub(super) netlink: RtnetlinkSocket,
    addresses: RtnetlinkMonitor,
    pub(super) settings: PacketSettings,
    pub(super) commands: CommandSender,
    pub(super) received: Receiver<PacketCommand>,
    pub(super) services: BTreeMap<RawServiceKey, PacketVirtualService>,
    pub(super) servers: ServerSlots,
    pub(super) flows: PacketFlowTable,
    pub(super) clock: ProgramClock,
    pub(super) refusals: Refusals,
    /// Services that the program has and nobody owns.
    pub(super) unowned: BTreeMap<RawServiceKey, UnownedService>,
    /// The events that were lost before all flows were looked at last.
    pub(super) lost_events: u64,
    /// All flows are not looked at before this time.
    pub(super) next_recovery: Instant,
    pub(super) succession: Succession,
    pub(super) check_program: CheckProgram,
    /// What the drivers of the devices for XDP do, by number; `None` for one that was refused.
    pub(super) xdp_devices: BTreeMap<u32, Option<u16>>,
    /// The engines of other machines that are told of the flows.
    pub(super) followers: Vec<FlowFollower>,
    /// Where the search goes on for flows that they were not told of.
    pub(super) search_for_untold: FlowWalk,
    pub(super) followed: FollowedEngine,
    /// The error that was logged last.
    pub(super) said: String,
    pub(super) published: Arc<Mutex<PublishedState>>,
}

/// What the thread tells of itself.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    pub(super) statistics: PacketStatistics,
    pub(super) devices: Vec<String>,
    pub(super) xdp_devices: Vec<String>,
}

impl PacketWorker {
    /// Reads what an earlier process left.
    pub(super) fn new(
        (program, maps): (PacketProgram, PacketMaps),
        tap: Tap,
        (netlink, addresses): (RtnetlinkSocket, RtnetlinkMonitor),
        settings: PacketSettings,
        (commands, received): (CommandSender, Receiver<PacketCommand>),
    ) -> Result<Self, PacketError> {
        let LeftState { unowned, servers, flows } = LeftState::read(&maps, &settings)?;
        let lost_events = PacketStatistics::read(&maps)?.events_lost;
        let mut this = Self {
            maps,
            program,
            tap,
            netlink,
            addresses,
            settings,
            commands,
            received,
            services: BTreeMap::new(),
            servers,
            flows,
            clock: ProgramClock,
            refusals: Refusals::default(),
            unowned,
            lost_events,
            next_recovery: now(),
            succession: Succession::default(),
            check_program: CheckProgram::default(),
            xdp_devices: BTreeMap::new(),
            followers: Vec::new(),
            search_for_untold: FlowWalk::default(),
            followed: FollowedEngine::default(),
            said: String::new(),
            published: Arc::default(),
        };
        this.follow_devices()?;
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
        let alive_interval =
            (self.settings.alive_for / 5).clamp(MIN_ALIVE_INTERVAL, MAX_ALIVE_INTERVAL);
        let (mut next_alive, mut next_audit) = (started_at, started_at);
        // Packets, events and flows that are left for the next round, so that none of them waits long.
        let mut has_more = false;
        let mut has_due = false;
        let mut has_flows_to_tell = false;
        let mut look_again: Option<Instant> = None;
        let mut last_decided = started_at;
        loop {
            let wait = if has_more || has_due || has_flows_to_tell {
                Duration::ZERO
            } else {
                let next = look_again.map_or(next_alive, |at| at.min(next_alive));
                next - now().min(next)
            };
            let (has_packet, has_address) = self.wait(wait);
            if has_address && self.addresses.has_changed() {
                // It is told before routes have changed.
                look_again = Some(now() + LOOK_AGAIN_AFTER);
                let result = self.follow_addresses(now());
                self.check(result);
            }
            if look_again.take_if(|at| now() >= *at).is_some() {
                let result = self.follow_addresses(now());
                self.check(result);
            }
            // A change of a scheduler wakes nobody.
            if self.commands.waker().take_change() || now() >= next_alive {
                self.follow_sets(&waker);
            }
            while let Ok(command) = self.received.try_recv() {
                // What was changed before the command was sent is followed before it runs.
                if self.commands.waker().take_change() {
                    self.follow_sets(&waker);
                }
                if matches!(command, PacketCommand::Stop) {
                    return self.end();
                }
                self.run_command(command, &waker);
            }
            let now = now();
            has_more = self.has_events() && self.read_events(now);
            if has_packet {
                let max = if now - last_decided < BURST_INTERVAL { MAX_BATCH } else { 1 };
                let decided = self.decide_waiting(&mut buffer, now, max);
                self.check(decided);
                last_decided = now;
            }
            if has_due || now >= next_alive {
                has_due = self.check_flows();
            }
            self.report_ends();
            let is_telling = has_flows_to_tell || now >= next_alive;
            if now >= next_alive {
                self.tell_alive();
                // While another process is asked, the count is that of its packets.
                if !has_packet && self.has_events() {
                    let result = self.maps.clear_waiting_upcalls();
                    self.check(result);
                }
                next_alive = now + alive_interval;
                self.end_drained(now);
                let ended = self.end_takeovers(now);
                self.check(ended);
            }
            // Of flows that have ended too, before the numbers of their servers are given to others.
            if is_telling {
                let told = self.tell_followers();
                has_flows_to_tell = self.check(told).unwrap_or_default();
            }
            if now >= next_audit {
                self.audit(now, now - started_at >= CLAIM_TIME);
                next_audit = now + AUDIT_INTERVAL;
            }
        }
    }

    /// Waits for something to do. Returns whether a packet waits to be decided, and whether addresses have changed.
    fn wait(&self, wait: Duration) -> (bool, bool) {
        let events = self.maps.events_fd();
        let mut fds = [
            PollFd::new(self.commands.waker().event(), PollFlags::IN),
            PollFd::new(&self.tap, PollFlags::IN),
            PollFd::new(&self.addresses, PollFlags::IN),
            PollFd::from_borrowed_fd(events, PollFlags::IN),
        ];
        // They stay readable while another process is to read them.
        let fds = if self.has_events() { &mut fds[..] } else { &mut fds[..3] };
        let wait = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(1),
            tv_nsec: wait.subsec_nanos().into(),
        };
        // A signal wakes it early, which does no harm.
        let _ = poll(fds, Some(&wait));
        if fds[0].revents().contains(PollFlags::IN) {
            self.commands.waker().clear();
        }
        let has_packet = fds[1].revents().contains(PollFlags::IN);
        // Notifications that had no room are an error.
        let has_address = fds[2].revents().intersects(PollFlags::IN | PollFlags::ERR);
        (has_packet, has_address)
    }

    /// Logs what failed, once for as long as it is the same.
    pub(super) fn say(&mut self, failure: &str) {
        if failure != self.said {
            tracing::error!("engine packet: {failure}");
            failure.clone_into(&mut self.said);
        }
    }

    pub(super) fn check<T>(&mut self, result: Result<T, PacketError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(&error.to_string());
                None
            }
        }
    }

    /// Applies what has changed in the sets.
    fn follow_sets(&mut self, waker: &Waker) {
        let mut failures = Vec::new();
        let mut cut = Vec::new();
        let mut has_changed = false;
        // A successor keeps the servers then.
        let is_superseded = self.is_superseded();
        for service in self.services.values_mut() {
            if service.has_changed(waker) && !is_superseded {
                has_changed = true;
                let result = service.reconcile(&mut self.maps, &mut self.servers);
                failures.extend(result.err());
                cut.extend(service.cut_servers(&self.servers));
            }
        }
        if !cut.is_empty() {
            // Flows that a table has decided a moment ago are cut, too.
            self.read_all_events();
            // Another machine decides what becomes of its flows.
            let is_cut =
                |record: &PacketFlow| record.round.is_none() && cut.contains(&record.server);
            let result =
                self.flows.cut(is_cut, self.clock.now(), &mut self.maps, &mut self.servers);
            failures.extend(result.err());
        }
        if has_changed {
            failures.extend(self.follow_routes(true).err());
            failures.extend(self.restore_unknown().err());
            self.follow_checks();
        }
        for failure in failures {
            self.say(&failure.to_string());
        }
    }

    /// Reads what has happened to flows. Returns whether more may wait.
    pub(super) fn read_events(&mut self, now: Instant) -> bool {
        for _ in 0..MAX_EVENTS {
            let Some(event) = self.maps.next_event() else { return false };
            match event.kind {
                event_kind::DECIDED => self.adopt(&event),
                event_kind::ANSWERED => self.flows.answered(&event, now),
                event_kind::ENDED => self.flows.ended(&event),
                event_kind::FORGOTTEN => self.flows.forgotten(&event, &mut self.servers),
                _ => {}
            }
        }
        true
    }

    /// Reads what has happened to flows until now.
    pub(super) fn read_all_events(&mut self) {
        // The program may go on to write them.
        for _ in 0..MAX_EVENT_READS {
            if !self.has_events() || !self.read_events(now()) {
                return;
            }
        }
    }

    fn check_flows(&mut self) -> bool {
        let now = self.clock.now();
        let (maps, servers) = (&mut self.maps, &mut self.servers);
        let result = self.flows.check_due(now, maps, servers, &self.settings);
        let has_due = self.check(result).unwrap_or_default();
        let (maps, servers) = (&mut self.maps, &mut self.servers);
        let result = self.flows.search_forgotten(now, maps, servers, &self.settings);
        self.check(result).unwrap_or_default() || has_due
    }

    /// Leaves what was handed over to a successor, and removes everything if there is nothing.
    fn end(mut self) {
        let is_empty = self.services.is_empty() && self.unowned.is_empty();
        // Without a process the table decides; another one may be there already.
        let control = self.maps.control();
        if self.check(control).is_some_and(|it| it.tap_ifindex == self.tap.device.index) {
            let result = self.maps.set_control(&RawControl::default());
            self.check(result);
        }
        if is_empty {
            let folder = self.settings.pin_folder.clone();
            let result = detach(&folder, self.program.devices());
            self.check(result);
        }
    }
}
