//! The election: one router's part in it, as a machine without socket or clock.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Advert, ConfigError, Preempt, RouterConfig, State, Transition, Version, Why};

/// So many advertisements may be missed before the master is held to be dead.
const MISSED: u32 = 3;

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Output {
    /// Send an advertisement of this priority, now.
    Send {
        /// 0 to give up.
        priority: u8,
    },
    /// Take the virtual addresses.
    Acquire,
    /// Give them up.
    Release,
    /// Tell the network where they are: gratuitous ARP, unsolicited neighbour advertisements.
    Announce,
    /// The state has changed: for logs and for whoever asked to be told.
    Changed(Transition),
}

/// What is heard of another router's advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heard {
    /// Whose it is.
    pub source: IpAddr,
    /// Its priority; 0 if it gives up.
    pub priority: u8,
    /// How often it advertises itself.
    pub interval: Duration,
}

impl Heard {
    /// What an advertisement from this address says.
    #[must_use]
    pub fn new(advert: &Advert<'_>, source: IpAddr) -> Self {
        Self { source, priority: advert.priority(), interval: advert.interval() }
    }
}

/// One router's part in the election of one virtual router.
///
/// Tell it what happens by the methods that take the time, which must not go back; let it have its
/// turn at [`poll_timeout`](Self::poll_timeout); and do what [`poll_output`](Self::poll_output) says
/// after each. Nothing here blocks, allocates much, or fails.
///
/// # Beyond the RFC
/// - A master that was held up for three intervals ([`Why::Stalled`]) gives up the addresses before it
///   does anything else: others may have them. It advertises nothing until it has listened as a backup.
/// - A backup whose own patience ended long ago listens once more for as long as its skew: what was
///   sent meanwhile lies unread.
/// - A master that hears one of lower priority advertises itself and announces its addresses, now
///   and [again](RouterConfig::announce): the network may have learned the other's.
/// - A backup [may wait](Preempt) before it takes over from a master of lower priority.
/// - A master that is told to [stop](Self::stop) says farewell and goes on to have the addresses until
///   it hears its successor: nobody is without service between.
#[derive(Debug)]
pub struct Router {
    config: RouterConfig,
    priority: u8,
    state: State,
    /// When the state's timer ends: the wait before the start, patience, or the next advertisement.
    due: Option<Instant>,
    /// When to announce again, and how often.
    announce: Option<(Instant, u32)>,
    /// The interval of the master that was heard last (version 3).
    learned: Duration,
    last_sent: Option<Instant>,
    /// Since when a master of lower priority is put up with.
    tolerates: Option<Instant>,
    /// It listens a while longer because it was held up.
    listens: bool,
    /// The master has said farewell.
    farewell: bool,
    /// It is master, has said farewell itself, and waits for its successor.
    leaves: bool,
    /// Its group decides whether it becomes master; would it?
    grouped: bool,
    wants: bool,
    outputs: VecDeque<Output>,
}

impl Router {
    /// A router that has not started.
    ///
    /// # Errors
    /// [`ConfigError`] names what does not make sense.
    pub fn new(config: RouterConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            priority: config.priority,
            learned: config.interval,
            config,
            state: State::Init,
            due: None,
            announce: None,
            last_sent: None,
            tolerates: None,
            listens: false,
            farewell: false,
            leaves: false,
            grouped: false,
            wants: false,
            outputs: VecDeque::new(),
        })
    }

    /// What it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its priority as it stands.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// When it wants to have its turn by [`handle_timeout`](Self::handle_timeout), if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let announce = self.announce.map(|(when, _)| when);
        [self.due, announce].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Starts, or waits until it is time to.
    pub fn start(&mut self, now: Instant) {
        if self.state != State::Init || self.due.is_some() {
            return;
        }
        match self.config.start_delay {
            Duration::ZERO => self.begin(now, Why::Told),
            delay => self.due = Some(now + delay),
        }
    }

    /// Stops. A master says farewell, so that another takes over after its skew, and has its addresses
    /// until it hears that one, or for longer than any priority would wait: an interval and a quarter.
    /// Told once more it does not wait.
    pub fn stop(&mut self, now: Instant) {
        if self.state != State::Master || self.leaves {
            return self.leave(State::Init, Why::Told, false);
        }
        self.outputs.push_back(Output::Send { priority: 0 });
        (self.leaves, self.announce) = (true, None);
        // No skew is longer than the first part; the rest is for clocks that differ and for the way.
        self.due = Some(now + self.skew_of(0) * 5 / 4);
    }

    /// Says that something it needs has failed, or that all of it is there.
    pub fn set_fault(&mut self, now: Instant, is_fault: bool) {
        match (is_fault, self.state) {
            (true, State::Backup | State::Master) => self.leave(State::Fault, Why::Fault, true),
            (false, State::Fault) => self.begin(now, Why::Fault),
            _ => {}
        }
    }

    /// Changes its priority; 1 to 254, or the owner's 255. A master tells the others at once.
    pub fn set_priority(&mut self, now: Instant, priority: u8) {
        self.give_up_if_stalled(now);
        let priority = priority.max(1);
        if priority != std::mem::replace(&mut self.priority, priority)
            && self.state == State::Master
            && !self.leaves
        {
            self.advertise(now);
        }
    }

    /// Hears an advertisement for its virtual router from somebody else. In version 2 one of another
    /// interval than its own counts for nothing (RFC 3768, section 7.1).
    pub fn handle_advert(&mut self, now: Instant, heard: &Heard) {
        if self.config.version == Version::V2 && heard.interval != self.config.interval {
            return;
        }
        self.give_up_if_stalled(now);
        match self.state {
            State::Init | State::Fault => {}
            State::Backup => self.hear_as_backup(now, heard),
            // Whoever says that it is there has the addresses.
            State::Master if self.leaves && heard.priority > 0 => {
                self.leave(State::Init, Why::Told, false);
            }
            State::Master if self.leaves => {}
            State::Master => self.hear_as_master(now, heard),
        }
    }

    /// Does what is due; harmless where nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.give_up_if_stalled(now);
        if let Some(due) = self.due.filter(|due| *due <= now) {
            match self.state {
                State::Init => self.begin(now, Why::Told),
                State::Backup => self.lose_patience(now, due),
                State::Master if self.leaves => self.leave(State::Init, Why::Told, false),
                State::Master => self.beat(now, due),
                State::Fault => self.due = None,
            }
        }
        if let Some((when, left)) = self.announce.filter(|(when, _)| *when <= now) {
            self.outputs.push_back(Output::Announce);
            let next = when.max(now) + self.config.announce_every;
            self.announce = (left > 1).then(|| (next, left - 1));
        }
    }

    /// How long it waits for a master: three of its intervals, and the longer the lower its priority.
    fn patience(&self) -> Duration {
        self.learned * MISSED + self.skew()
    }

    fn skew(&self) -> Duration {
        self.skew_of(self.priority)
    }

    fn skew_of(&self, priority: u8) -> Duration {
        let unit = match self.config.version {
            // In seconds, whatever the interval.
            Version::V2 => Duration::from_secs(1),
            Version::V3 => self.learned,
        };
        unit * (256 - u32::from(priority)) / 256
    }

    fn is_owner(&self) -> bool {
        self.priority == 255
    }

    /// Takes part from now on.
    fn begin(&mut self, now: Instant, why: Why) {
        self.learned = self.config.interval;
        self.listen(now, why);
        if self.is_owner() && !self.grouped {
            self.take(now, Why::Owner);
        } else if self.is_owner() {
            self.due = Some(now);
        }
    }

    /// Becomes backup.
    fn listen(&mut self, now: Instant, why: Why) {
        (self.tolerates, self.listens, self.farewell, self.wants) = (None, false, false, false);
        self.due = Some(now + self.patience());
        self.announce = None;
        self.change(State::Backup, why);
    }

    /// Becomes master.
    fn take(&mut self, now: Instant, why: Why) {
        self.wants = false;
        self.advertise(now);
        self.outputs.push_back(Output::Acquire);
        self.announce(now);
        self.change(State::Master, why);
    }

    /// Takes no part any more; a master gives up what it has, and may say so.
    fn leave(&mut self, to: State, why: Why, says_so: bool) {
        if self.state == State::Master {
            if says_so {
                self.outputs.push_back(Output::Send { priority: 0 });
            }
            self.outputs.push_back(Output::Release);
        }
        (self.due, self.announce, self.wants, self.leaves) = (None, None, false, false);
        self.change(to, why);
    }

    fn change(&mut self, to: State, why: Why) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.outputs.push_back(Output::Changed(Transition { from, to, why }));
        }
    }

    fn advertise(&mut self, now: Instant) {
        self.outputs.push_back(Output::Send { priority: self.priority });
        self.last_sent = Some(now);
        self.due = Some(now + self.config.interval);
    }

    fn announce(&mut self, now: Instant) {
        self.outputs.push_back(Output::Announce);
        let again = self.config.announcements;
        self.announce = (again > 0).then(|| (now + self.config.announce_every, again));
    }

    fn hear_as_backup(&mut self, now: Instant, heard: &Heard) {
        if heard.priority == 0 {
            // Whoever has the highest priority is the first to take over.
            self.due = Some(now + self.skew());
            (self.listens, self.farewell, self.tolerates) = (true, true, None);
            return;
        }
        if heard.priority >= self.priority {
            self.tolerates = None;
        } else if !self.puts_up_with_it(now) {
            return;
        }
        if self.config.version == Version::V3 {
            self.learned = heard.interval;
        }
        (self.listens, self.farewell, self.wants) = (false, false, false);
        self.due = Some(now + self.patience());
    }

    /// Does it leave a master of lower priority where it is?
    fn puts_up_with_it(&mut self, now: Instant) -> bool {
        match self.config.preempt {
            Preempt::Always => false,
            Preempt::Never => true,
            Preempt::After(delay) => {
                let since = *self.tolerates.get_or_insert(now);
                now.saturating_duration_since(since) < delay
            }
        }
    }

    fn hear_as_master(&mut self, now: Instant, heard: &Heard) {
        let goes_before = heard.priority > self.priority
            || (heard.priority == self.priority && heard.source > self.config.address);
        if heard.priority == 0 {
            // Another that thought itself master is gone: the network may have learned its addresses.
            self.advertise(now);
            self.announce(now);
        } else if goes_before {
            self.outputs.push_back(Output::Release);
            if self.config.version == Version::V3 {
                self.learned = heard.interval;
            }
            let &Heard { priority, source, .. } = heard;
            self.listen(now, Why::Better { priority, source });
        } else {
            self.advertise(now);
            self.announce(now);
        }
    }

    /// No master was heard for as long as it waits.
    fn lose_patience(&mut self, now: Instant, due: Instant) {
        let late = now.saturating_duration_since(due);
        if late > self.learned && !self.listens {
            self.listens = true;
            self.due = Some(now + self.skew());
        } else if self.grouped {
            self.wants = true;
            self.due = Some(now + self.patience());
        } else {
            self.take(now, self.reason());
        }
    }

    /// Why it would be master.
    fn reason(&self) -> Why {
        match (self.is_owner(), self.farewell) {
            (true, _) => Why::Owner,
            (false, true) => Why::Farewell,
            (false, false) => Why::Silence,
        }
    }

    /// Ahead of all that a master does: were the others without word for so long that one of them may
    /// have taken over?
    fn give_up_if_stalled(&mut self, now: Instant) {
        if self.state != State::Master || self.leaves {
            return;
        }
        let silent = self.last_sent.map(|sent| now.saturating_duration_since(sent));
        if let Some(silent) = silent.filter(|silent| *silent >= self.config.interval * MISSED) {
            self.outputs.push_back(Output::Release);
            self.listen(now, Why::Stalled(silent));
        }
    }

    /// It is time for the next advertisement.
    fn beat(&mut self, now: Instant, due: Instant) {
        self.advertise(now);
        // The beat is kept, though one was late.
        self.due = Some((due + self.config.interval).max(now));
    }

    // What its group does with it.

    pub(super) fn join(&mut self) {
        self.grouped = true;
    }

    pub(super) fn wants(&self) -> bool {
        self.wants
    }

    pub(super) fn take_with_others(&mut self, now: Instant) {
        if self.state == State::Backup {
            self.take(now, self.reason());
        }
    }

    pub(super) fn give_up_with_others(&mut self, now: Instant) {
        if self.leaves {
            self.leave(State::Init, Why::Told, false);
        } else if self.state == State::Master {
            self.outputs.push_back(Output::Send { priority: 0 });
            self.outputs.push_back(Output::Release);
            self.listen(now, Why::Group);
        }
    }
}
