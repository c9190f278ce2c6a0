//! The thread that runs virtual routers: everything that they do is done here, one after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::events::{Event, What};
use super::instance::Instance;
use super::netlink::{Netlink, Watch};
use super::view::{HeardView, RouterView, View};
use crate::histogram::Histogram;
use crate::vrrp::{Group, Impact, Output, State};

/// Above ordinary threads, below what the kernel needs for itself.
const REALTIME: i32 = 10;

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Something that is tracked is up, or down.
    Track(String, bool),
    /// Something more is tracked.
    Enter(String, Impact),
    /// And something no longer.
    Leave(String),
    /// A master is to announce its addresses.
    Announce,
    View(SyncSender<View>),
    Subscribe(SyncSender<Event>),
    /// End, with a farewell.
    Stop,
}

/// What the thread owns.
#[derive(Debug)]
pub(super) struct Routers {
    pub(super) instances: Vec<Instance>,
    pub(super) group: Group,
    pub(super) netlink: Netlink,
    pub(super) watch: Watch,
    pub(super) commands: Receiver<Command>,
    /// Readable when there are commands.
    pub(super) wake: Arc<OwnedFd>,
    pub(super) is_master: Arc<AtomicBool>,
    pub(super) subscribers: Vec<SyncSender<Event>>,
    pub(super) lost: u64,
    pub(super) lateness: Histogram,
    pub(super) is_realtime: bool,
}

impl Routers {
    /// Runs until it is told to stop, or nobody is left who could.
    pub(super) fn run(mut self) {
        self.is_realtime = crate::sys::sched::set_realtime(REALTIME).is_ok();
        let begun = now();
        self.look(begun);
        self.group.start(begun);
        self.settle(begun);
        loop {
            if let Err(error) = self.wait() {
                self.tell_all("wait", &error);
                // Without waiting there are no turns; the addresses go by themselves if this lasts.
                std::thread::sleep(Duration::from_millis(1));
            }
            let now = now();
            if !self.obey(now) {
                break;
            }
            self.hear(now);
            self.be_on_time(now);
            self.settle(now);
        }
        self.leave();
        for instance in &mut self.instances {
            instance.place.close(&mut self.netlink);
        }
    }

    /// Stops, and waits for whoever takes over, but not for long.
    fn leave(&mut self) {
        let begun = now();
        self.group.stop(begun);
        self.settle(begun);
        while self.group.routers().iter().any(|router| router.state() == State::Master) {
            let waited = self.wait();
            let now = now();
            // Told once more, or unable to wait, it waits for nobody.
            if waited.is_err() || !self.obey(now) {
                self.group.stop(now);
            }
            self.hear(now);
            self.be_on_time(now);
            self.settle(now);
        }
        // A fault may have come in between.
        let ended = now();
        self.group.stop(ended);
        self.settle(ended);
    }

    /// Until something comes, or something is due.
    fn wait(&self) -> io::Result<()> {
        let now = now();
        let wait = self.due().map(|due| due.saturating_duration_since(now));
        // An hour is as good as for ever, and fits.
        let wait = wait.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let own: [BorrowedFd<'_>; 2] = [self.wake.as_fd(), self.watch.as_fd()];
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

    fn due(&self) -> Option<Instant> {
        let each = self.instances.iter().flat_map(|it| [it.place.due(), it.again]);
        each.flatten().chain(self.group.poll_timeout()).min()
    }

    /// Does what it is asked; `false` if that is to end.
    fn obey(&mut self, now: Instant) -> bool {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.wake, &mut count);
        loop {
            match self.commands.try_recv() {
                Ok(Command::Track(name, is_up)) => {
                    for instance in &mut self.instances {
                        instance.track(&name, is_up);
                    }
                }
                Ok(Command::Enter(name, impact)) => {
                    for instance in &mut self.instances {
                        instance.tracks.insert(name.clone(), impact, true);
                    }
                }
                Ok(Command::Leave(name)) => {
                    for instance in &mut self.instances {
                        instance.tracks.remove(&name);
                    }
                }
                Ok(Command::Announce) => {
                    for (place, instance) in self.instances.iter_mut().enumerate() {
                        if self.group.routers()[place].state() == State::Master {
                            instance.announce(now);
                        }
                    }
                }
                Ok(Command::View(answer)) => drop(answer.try_send(self.view(now))),
                Ok(Command::Subscribe(subscriber)) => self.subscribers.push(subscriber),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Hears what has come; before anything is done that is due, as it may say that it is not.
    fn hear(&mut self, now: Instant) {
        for place in 0..self.instances.len() {
            while let Some(heard) = self.instances[place].receive(now) {
                self.group.handle_advert(now, place, &heard);
            }
            let is_master = self.group.routers()[place].state() == State::Master;
            self.instances[place].hear_conflicts(is_master, now);
        }
        if self.watch.has_changed() {
            self.look(now);
        }
    }

    /// Does what is due.
    fn be_on_time(&mut self, now: Instant) {
        if let Some(due) = self.group.poll_timeout().filter(|due| *due <= now) {
            self.lateness.record(now.saturating_duration_since(due));
        }
        for instance in &mut self.instances {
            if instance.again.is_some_and(|again| again <= now) {
                instance.try_again();
            }
        }
        self.group.handle_timeout(now);
    }

    fn look(&mut self, now: Instant) {
        for instance in &mut self.instances {
            instance.look(&mut self.netlink, now);
        }
    }

    /// Does what follows, until nothing more does; then renews what a master has.
    fn settle(&mut self, now: Instant) {
        loop {
            for (place, instance) in self.instances.iter().enumerate() {
                self.group.set_priority(now, place, instance.tracks.priority());
                self.group.set_fault(now, place, instance.tracks.is_fault());
            }
            let Some((place, output)) = self.group.poll_output() else { break };
            self.act(place, output, now);
        }
        for instance in &mut self.instances {
            instance.renew(&mut self.netlink, now);
        }
        let is_master = self.group.routers().iter().all(|it| it.state() == State::Master);
        self.is_master.store(is_master, Ordering::Release);
        for place in 0..self.instances.len() {
            for what in std::mem::take(&mut self.instances[place].events) {
                self.tell(place, what);
            }
        }
    }

    fn act(&mut self, place: usize, output: Output, now: Instant) {
        let instance = &mut self.instances[place];
        match output {
            Output::Send { priority } => instance.send(priority, now),
            Output::Acquire => instance.acquire(&mut self.netlink, now),
            Output::Release => instance.release(&mut self.netlink, now),
            Output::Announce => instance.announce(now),
            Output::Changed(transition) => {
                *instance.transitions.entry(transition.to).or_default() += 1;
                instance.since = now;
                let priority = self.group.routers()[place].priority();
                instance.events.push(What::Changed(transition, priority));
            }
        }
    }

    fn tell_all(&mut self, what: &str, error: &io::Error) {
        let (what, error) = (what.to_owned(), error.to_string());
        self.tell(0, What::Failed { what, error });
    }

    fn tell(&mut self, place: usize, what: What) {
        let event = Event { router: self.instances[place].asked.name.clone(), what };
        let lost = &mut self.lost;
        self.subscribers.retain(|subscriber| match subscriber.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                *lost += 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }

    fn view(&self, now: Instant) -> View {
        let routers = self.instances.iter().zip(self.group.routers());
        let routers = routers.map(|(instance, router)| RouterView {
            name: instance.asked.name.clone(),
            router: instance.asked.election.id,
            interface: instance.asked.interface.clone(),
            addresses: instance.asked.addresses.iter().map(ToString::to_string).collect(),
            state: router.state(),
            since: now.saturating_duration_since(instance.since),
            priority: router.priority(),
            heard: instance
                .heard
                .map(|heard| HeardView { source: heard.source, priority: heard.priority }),
            tracks: instance.tracks.iter().map(|(name, is_up)| (name.to_owned(), is_up)).collect(),
            transitions: instance.transitions.clone(),
            adverts: instance.adverts.clone(),
        });
        View {
            routers: routers.collect(),
            lateness: self.lateness.snapshot(),
            realtime: self.is_realtime,
            events_lost: self.lost,
        }
    }
}

pub(super) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a shell: it reads the clock")]
    Instant::now()
}
