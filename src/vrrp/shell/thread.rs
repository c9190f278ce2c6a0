//! The thread that runs virtual routers: a loop over commands, received packets and timers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::events::{VrrpEvent, VrrpEventKind};
use super::instance::VrrpInstance;
use super::status::{LastAdvertStatus, VirtualRouterStatus, VrrpStatus};
use super::{VirtualRouterConfig, VrrpStartError};
use crate::events::EventSender;
use crate::histogram::AtomicHistogram;
use crate::rtnetlink::{RtnetlinkMonitor, RtnetlinkSocket};
use crate::vrrp::{ElectionOutput, TrackEffect, VrrpState, VrrpSyncGroup};

/// Above ordinary threads, below the kernel's own threads.
const REALTIME_PRIORITY: i32 = 10;

/// A command to the thread.
#[derive(Debug)]
pub(super) enum VrrpCommand {
    /// Set whether a tracked item is up.
    SetTrack(String, bool),
    /// Add a tracked item, which is up.
    AddTrack(String, TrackEffect),
    /// Remove a tracked item.
    RemoveTrack(String),
    /// Change the configurations of all virtual routers, which stay the same ones; or of none.
    Reconfigure(Vec<VirtualRouterConfig>, SyncSender<Result<(), VrrpStartError>>),
    /// Send the events to other notify commands from now on.
    ReplaceNotify(EventSender<VrrpEvent>),
    /// Hold preemption back, or allow it again.
    HoldPreemption(bool),
    /// Announce the addresses of each master.
    Announce,
    /// Send the status.
    Status(SyncSender<VrrpStatus>),
    /// Resign and end.
    Stop,
    /// Panic, to test what follows.
    #[cfg(all(test, target_os = "linux", feature = "director"))]
    Panic,
}

/// The data of the thread.
#[derive(Debug)]
pub(super) struct VrrpThread {
    pub(super) instances: Vec<VrrpInstance>,
    pub(super) sync_group: VrrpSyncGroup,
    pub(super) netlink: RtnetlinkSocket,
    pub(super) monitor: RtnetlinkMonitor,
    pub(super) commands: Receiver<VrrpCommand>,
    /// An eventfd that is readable when there are commands.
    pub(super) wakeup: Arc<OwnedFd>,
    pub(super) is_master: Arc<AtomicBool>,
    /// The only strong reference: the readers' streams end with the thread.
    pub(super) events: Arc<EventSender<VrrpEvent>>,
    /// Those of the notify commands, which another configuration replaces.
    pub(super) notify_events: EventSender<VrrpEvent>,
    pub(super) lateness: AtomicHistogram,
    pub(super) is_realtime: bool,
}

impl Drop for VrrpThread {
    /// A thread that panics is no master any more.
    fn drop(&mut self) {
        self.is_master.store(false, Ordering::Release);
    }
}

impl VrrpThread {
    /// Runs until [`VrrpCommand::Stop`], or until the sender of commands is dropped.
    pub(super) fn run(mut self) {
        self.is_realtime = crate::sys::sched::set_realtime_priority(REALTIME_PRIORITY).is_ok();
        let started_at = now();
        self.refresh_own_tracks(started_at);
        self.sync_group.start(started_at);
        self.process_outputs(started_at);
        loop {
            if let Err(error) = self.wait_for_input() {
                self.publish_failure("wait for packets and timers", &error);
                // Not a busy loop. If the failure lasts, the lifetimes of the addresses end.
                std::thread::sleep(Duration::from_millis(1));
            }
            let now = now();
            if !self.handle_commands(now) {
                break;
            }
            self.receive_adverts(now);
            self.handle_timeouts(now);
            self.process_outputs(now);
        }
        self.hand_over();
        for instance in &mut self.instances {
            instance.address_set.close(&mut self.netlink);
        }
    }

    /// Stops the election, and waits for a successor, at most as long as [`Election::stop`](crate::vrrp::Election::stop) allows.
    fn hand_over(&mut self) {
        let stopped_at = now();
        self.sync_group.stop(stopped_at);
        self.process_outputs(stopped_at);
        while self.sync_group.members().iter().any(|member| member.state() == VrrpState::Master) {
            let waited = self.wait_for_input();
            let now = now();
            // A second stop, or a failure to wait, ends the handover at once.
            if waited.is_err() || !self.handle_commands(now) {
                self.sync_group.stop(now);
            }
            self.receive_adverts(now);
            self.handle_timeouts(now);
            self.process_outputs(now);
        }
        // A member that entered state fault meanwhile is stopped too.
        let ended_at = now();
        self.sync_group.stop(ended_at);
        self.process_outputs(ended_at);
    }

    /// Waits for a packet, a command, a notification, or the next deadline.
    fn wait_for_input(&self) -> io::Result<()> {
        let now = now();
        let wait = self.next_deadline().map(|due| due.saturating_duration_since(now));
        // Limited to what a `Timespec` holds.
        let wait = wait.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let thread_fds: [BorrowedFd<'_>; 2] = [self.wakeup.as_fd(), self.monitor.as_fd()];
        let instance_fds = self
            .instances
            .iter()
            .flat_map(|instance| [instance.socket.as_fd(), instance.announcer.as_fd()]);
        let mut fds: Vec<_> = thread_fds
            .into_iter()
            .chain(instance_fds)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let instances = self.instances.iter();
        let deadlines =
            instances.flat_map(|instance| [instance.address_set.renew_at(), instance.retry_at]);
        deadlines.flatten().chain(self.sync_group.poll_timeout()).min()
    }

    /// Executes the waiting commands; returns `false` if the thread is to end.
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
                Ok(VrrpCommand::AddTrack(name, effect)) => {
                    for instance in &mut self.instances {
                        instance.tracks.insert(name.clone(), effect, true);
                    }
                }
                Ok(VrrpCommand::RemoveTrack(name)) => {
                    for instance in &mut self.instances {
                        instance.tracks.remove(&name);
                    }
                }
                Ok(VrrpCommand::Reconfigure(configs, reply)) => {
                    let result = self.reconfigure(configs, now);
                    let _ = reply.try_send(result);
                }
                Ok(VrrpCommand::ReplaceNotify(events)) => self.notify_events = events,
                Ok(VrrpCommand::HoldPreemption(is_held)) => {
                    self.sync_group.hold_preemption(is_held);
                }
                Ok(VrrpCommand::Announce) => {
                    for (instance, member) in
                        self.instances.iter_mut().zip(self.sync_group.members())
                    {
                        if member.state() == VrrpState::Master {
                            instance.announce_addresses(now);
                        }
                    }
                }
                Ok(VrrpCommand::Status(reply)) => drop(reply.try_send(self.status(now))),
                #[cfg(all(test, target_os = "linux", feature = "director"))]
                Ok(VrrpCommand::Panic) => panic!("a fault of the VRRP thread"),
                Ok(VrrpCommand::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn reconfigure(
        &mut self,
        configs: Vec<VirtualRouterConfig>,
        now: Instant,
    ) -> Result<(), VrrpStartError> {
        for (instance, config) in self.instances.iter().zip(&configs) {
            instance.address_set.check_additions(config, &mut self.netlink)?;
        }
        for (index, config) in configs.into_iter().enumerate() {
            let Some(instance) = self.instances.get_mut(index) else { break };
            let election = config.election.clone();
            let name = config.name.clone();
            let is_master = self.sync_group.members()[index].state() == VrrpState::Master;
            instance.reconfigure(config, is_master, &mut self.netlink, now);
            self.sync_group
                .reconfigure(now, index, election)
                .map_err(|source| VrrpStartError::Config { router_name: name, source })?;
        }
        Ok(())
    }

    /// Handles the received packets and notifications. They are handled before the timers, because an
    /// advertisement restarts the master-down timer.
    fn receive_adverts(&mut self, now: Instant) {
        for index in 0..self.instances.len() {
            while let Some(advert) = self.instances[index].receive_advert(now) {
                self.sync_group.handle_advert(now, index, &advert);
            }
            let is_master = self.sync_group.members()[index].state() == VrrpState::Master;
            self.instances[index].check_conflicts(is_master, now);
        }
        if self.monitor.has_changed() {
            self.refresh_own_tracks(now);
        }
    }

    /// Handles the timers that have ended, and records how late.
    fn handle_timeouts(&mut self, now: Instant) {
        if let Some(due) = self.sync_group.poll_timeout().filter(|due| *due <= now) {
            self.lateness.record(now.saturating_duration_since(due));
        }
        for instance in &mut self.instances {
            if instance.retry_at.is_some_and(|due| due <= now) {
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

    /// Executes the outputs of the election until there are none, renews the addresses, and publishes
    /// the state and the events.
    fn process_outputs(&mut self, now: Instant) {
        loop {
            // An output may change the tracked items, as when the addresses cannot be added.
            for (index, instance) in self.instances.iter().enumerate() {
                let updated = self.sync_group.set_priority(now, index, instance.tracks.priority());
                debug_assert!(updated.is_ok(), "`TrackedItems::priority` is never 0");
                self.sync_group.set_fault(now, index, instance.tracks.fault());
            }
            let Some((index, output)) = self.sync_group.poll_output() else { break };
            self.execute(index, output, now);
        }
        for instance in &mut self.instances {
            instance.renew_addresses(&mut self.netlink, now);
        }
        let mut members = self.sync_group.members().iter();
        let is_master = members.all(|member| member.state() == VrrpState::Master);
        self.is_master.store(is_master, Ordering::Release);
        for index in 0..self.instances.len() {
            for kind in std::mem::take(&mut self.instances[index].pending_events) {
                self.publish(index, kind);
            }
        }
    }

    fn execute(&mut self, index: usize, output: ElectionOutput, now: Instant) {
        let instance = &mut self.instances[index];
        match output {
            ElectionOutput::SendAdvert { priority } => instance.send_advert(priority, now),
            ElectionOutput::AcquireAddresses => instance.acquire_addresses(&mut self.netlink, now),
            ElectionOutput::ReleaseAddresses => instance.release_addresses(&mut self.netlink, now),
            ElectionOutput::AnnounceAddresses => instance.announce_addresses(now),
            ElectionOutput::StateChanged(transition) => {
                *instance.transitions.entry(transition.to).or_default() += 1;
                instance.state_since = now;
                let priority = self.sync_group.members()[index].priority();
                let event = VrrpEventKind::StateChanged { transition, priority };
                instance.pending_events.push(event);
            }
        }
    }

    /// Publishes a failure of the whole thread, under the name of the first virtual router.
    fn publish_failure(&self, operation: &str, error: &io::Error) {
        let (operation, error) = (operation.to_owned(), error.to_string());
        self.publish(0, VrrpEventKind::OperationFailed { operation, error });
    }

    fn publish(&self, index: usize, kind: VrrpEventKind) {
        let event = VrrpEvent::new(&self.instances[index].config.name, kind);
        self.notify_events.send(event.clone());
        self.events.send(event);
    }

    fn status(&self, now: Instant) -> VrrpStatus {
        let pairs = self.instances.iter().zip(self.sync_group.members());
        let routers = pairs.map(|(instance, member)| VirtualRouterStatus {
            name: instance.config.name.clone(),
            virtual_router_id: instance.config.election.vrid,
            interface: instance.config.interface.clone(),
            addresses: instance
                .config
                .held_addresses()
                .map(|address| address.to_string())
                .collect(),
            state: member.state(),
            since: now.saturating_duration_since(instance.state_since),
            priority: member.priority(),
            last_advert: instance.last_advert.map(|advert| LastAdvertStatus {
                source: advert.source,
                priority: advert.priority,
            }),
            tracks: instance.tracks.iter().map(|(name, is_up)| (name.to_owned(), is_up)).collect(),
            transitions: instance.transitions.clone(),
            adverts: instance.adverts.clone(),
        });
        VrrpStatus {
            routers: routers.collect(),
            lateness: self.lateness.snapshot(),
            realtime: self.is_realtime,
        }
    }
}

pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this thread reads the clock for the election")]
    Instant::now()
}
