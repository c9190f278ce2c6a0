//! The thread that runs virtual routers: everything that they do is done here, one after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::events::{VrrpEvent, VrrpEventKind};
use super::instance::VrrpInstance;
use super::netlink::{RtnetlinkMonitor, RtnetlinkSocket};
use super::status::{LastAdvertStatus, VirtualRouterStatus, VrrpStatus};
use crate::histogram::AtomicHistogram;
use crate::vrrp::{ElectionOutput, TrackEffect, VrrpState, VrrpSyncGroup};

/// Above ordinary threads, below what the kernel needs for itself.
const REALTIME_PRIORITY: i32 = 10;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum VrrpCommand {
    /// Something that is tracked is up, or down.
    SetTrack(String, bool),
    /// Something more is tracked.
    AddTrack(String, TrackEffect),
    /// And something no longer.
    RemoveTrack(String),
    /// A master is to announce its addresses.
    Announce,
    Status(SyncSender<VrrpStatus>),
    Subscribe(SyncSender<VrrpEvent>),
    /// End, with a farewell.
    Stop,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct VrrpThread {
    pub(super) instances: Vec<VrrpInstance>,
    pub(super) sync_group: VrrpSyncGroup,
    pub(super) netlink: RtnetlinkSocket,
    pub(super) monitor: RtnetlinkMonitor,
    pub(super) commands: Receiver<VrrpCommand>,
    /// Readable when there are commands.
    pub(super) wakeup: Arc<OwnedFd>,
    pub(super) is_master: Arc<AtomicBool>,
    pub(super) subscribers: Vec<SyncSender<VrrpEvent>>,
    pub(super) events_lost: u64,
    pub(super) lateness: AtomicHistogram,
    pub(super) is_realtime: bool,
}

impl VrrpThread {
    /// Runs until it is told to stop, or nobody is left who could.
    pub(super) fn run(mut self) {
        self.is_realtime = crate::sys::sched::set_realtime_priority(REALTIME_PRIORITY).is_ok();
        let begun = now();
        self.refresh_own_tracks(begun);
        self.sync_group.start(begun);
        self.drain_outputs(begun);
        loop {
            if let Err(error) = self.wait_for_input() {
                self.publish_failure("wait", &error);
                // Without waiting there are no turns; the addresses go by themselves if this lasts.
                std::thread::sleep(Duration::from_millis(1));
            }
            let now = now();
            if !self.handle_commands(now) {
                break;
            }
            self.receive_adverts(now);
            self.handle_timeouts(now);
            self.drain_outputs(now);
        }
        self.hand_over();
        for instance in &mut self.instances {
            instance.address_set.close(&mut self.netlink);
        }
    }

    /// Stops, and waits for whoever takes over, but not for long.
    fn hand_over(&mut self) {
        let begun = now();
        self.sync_group.stop(begun);
        self.drain_outputs(begun);
        while self.sync_group.members().iter().any(|router| router.state() == VrrpState::Master) {
            let waited = self.wait_for_input();
            let now = now();
            // Told once more, or unable to wait, it waits for nobody.
            if waited.is_err() || !self.handle_commands(now) {
                self.sync_group.stop(now);
            }
            self.receive_adverts(now);
            self.handle_timeouts(now);
            self.drain_outputs(now);
        }
        // A fault may have come in between.
        let ended = now();
        self.sync_group.stop(ended);
        self.drain_outputs(ended);
    }

    /// Until something comes, or something is due.
    fn wait_for_input(&self) -> io::Result<()> {
        let now = now();
        let wait = self.next_deadline().map(|due| due.saturating_duration_since(now));
        // An hour is as good as for ever, and fits.
        let wait = wait.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let own: [BorrowedFd<'_>; 2] = [self.wakeup.as_fd(), self.monitor.as_fd()];
        let theirs = self.instances.iter().flat_map(|it| [it.socket.as_fd(), it.announcer.as_fd()]);
        let mut fds: Vec<_> = own
            .into_iter()
            .chain(theirs)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let each = self.instances.iter().flat_map(|it| [it.address_set.renew_at(), it.retry_at]);
        each.flatten().chain(self.sync_group.poll_timeout()).min()
    }

    /// Does what it is asked; `false` if that is to end.
    fn handle_commands(&mut self, now: Instant) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wakeup, &mut count);
        loop {
            match self.commands.try_recv() {
                Ok(VrrpCommand::SetTrack(name, is_up)) => {
                    for instance in &mut self.instances {
                        instance.set_track(&name, is_up);
                    }
                }
                Ok(VrrpCommand::AddTrack(name, impact)) => {
                    for instance in &mut self.instances {
                        instance.tracks.insert(name.clone(), impact, true);
                    }
                }
                Ok(VrrpCommand::RemoveTrack(name)) => {
                    for instance in &mut self.instances {
                        instance.tracks.remove(&name);
                    }
                }
                Ok(VrrpCommand::Announce) => {
                    for (place, instance) in self.instances.iter_mut().enumerate() {
                        if self.sync_group.members()[place].state() == VrrpState::Master {
                            instance.announce_addresses(now);
                        }
                    }
                }
                Ok(VrrpCommand::Status(answer)) => drop(answer.try_send(self.status(now))),
                Ok(VrrpCommand::Subscribe(subscriber)) => self.subscribers.push(subscriber),
                Ok(VrrpCommand::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Hears what has come; before anything is done that is due, as it may say that it is not.
    fn receive_adverts(&mut self, now: Instant) {
        for place in 0..self.instances.len() {
            while let Some(heard) = self.instances[place].receive_advert(now) {
                self.sync_group.handle_advert(now, place, &heard);
            }
            let is_master = self.sync_group.members()[place].state() == VrrpState::Master;
            self.instances[place].check_conflicts(is_master, now);
        }
        if self.monitor.has_changed() {
            self.refresh_own_tracks(now);
        }
    }

    /// Does what is due.
    fn handle_timeouts(&mut self, now: Instant) {
        if let Some(due) = self.sync_group.poll_timeout().filter(|due| *due <= now) {
            self.lateness.record(now.saturating_duration_since(due));
        }
        for instance in &mut self.instances {
            if instance.retry_at.is_some_and(|again| again <= now) {
                instance.retry_acquire();
            }
        }
        self.sync_group.handle_timeout(now);
    }

    fn refresh_own_tracks(&mut self, now: Instant) {
        for instance in &mut self.instances {
            instance.refresh_own_tracks(&mut self.netlink, now);
        }
    }

    /// Does what follows, until nothing more does; then renews what a master has.
    fn drain_outputs(&mut self, now: Instant) {
        loop {
            for (place, instance) in self.instances.iter().enumerate() {
                self.sync_group.set_priority(now, place, instance.tracks.priority());
                self.sync_group.set_fault(now, place, instance.tracks.has_fault());
            }
            let Some((place, output)) = self.sync_group.poll_output() else { break };
            self.execute(place, output, now);
        }
        for instance in &mut self.instances {
            instance.renew_addresses(&mut self.netlink, now);
        }
        let is_master = self.sync_group.members().iter().all(|it| it.state() == VrrpState::Master);
        self.is_master.store(is_master, Ordering::Release);
        for place in 0..self.instances.len() {
            for what in std::mem::take(&mut self.instances[place].pending_events) {
                self.publish(place, what);
            }
        }
    }

    fn execute(&mut self, place: usize, output: ElectionOutput, now: Instant) {
        let instance = &mut self.instances[place];
        match output {
            ElectionOutput::SendAdvert { priority } => instance.send_advert(priority, now),
            ElectionOutput::AcquireAddresses => instance.acquire_addresses(&mut self.netlink, now),
            ElectionOutput::ReleaseAddresses => instance.release_addresses(&mut self.netlink, now),
            ElectionOutput::AnnounceAddresses => instance.announce_addresses(now),
            ElectionOutput::StateChanged(transition) => {
                *instance.transitions.entry(transition.to).or_default() += 1;
                instance.state_since = now;
                let priority = self.sync_group.members()[place].priority();
                instance.pending_events.push(VrrpEventKind::StateChanged(transition, priority));
            }
        }
    }

    fn publish_failure(&mut self, what: &str, error: &io::Error) {
        let (what, error) = (what.to_owned(), error.to_string());
        self.publish(0, VrrpEventKind::OperationFailed { what, error });
    }

    fn publish(&mut self, place: usize, what: VrrpEventKind) {
        let event =
            VrrpEvent { router_name: self.instances[place].config.name.clone(), kind: what };
        let lost = &mut self.events_lost;
        self.subscribers.retain(|subscriber| match subscriber.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                *lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    fn status(&self, now: Instant) -> VrrpStatus {
        let routers = self.instances.iter().zip(self.sync_group.members());
        let routers = routers.map(|(instance, router)| VirtualRouterStatus {
            name: instance.config.name.clone(),
            virtual_router_id: instance.config.election.vrid,
            interface: instance.config.interface.clone(),
            addresses: instance.config.addresses.iter().map(ToString::to_string).collect(),
            state: router.state(),
            since: now.saturating_duration_since(instance.state_since),
            priority: router.priority(),
            last_advert: instance
                .last_advert
                .map(|heard| LastAdvertStatus { source: heard.source, priority: heard.priority }),
            tracks: instance.tracks.iter().map(|(name, is_up)| (name.to_owned(), is_up)).collect(),
            transitions: instance.transitions.clone(),
            adverts: instance.adverts.clone(),
        });
        VrrpStatus {
            routers: routers.collect(),
            lateness: self.lateness.snapshot(),
            realtime: self.is_realtime,
            events_lost: self.events_lost,
        }
    }
}

pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a shell: it reads the clock")]
    Instant::now()
}
