//! The election: one router's part in it, as a machine without socket or clock.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{
    Advert, ElectionConfig, PreemptMode, TransitionReason, VrrpConfigError, VrrpState,
    VrrpTransition, VrrpVersion,
};

/// So many advertisements may be missed before the master is held to be dead.
const MAX_MISSED_ADVERTS: u32 = 3;

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ElectionOutput {
    /// Send an advertisement of this priority, now.
    SendAdvert {
        /// 0 to give up.
        priority: u8,
    },
    /// Take the virtual addresses.
    AcquireAddresses,
    /// Give them up.
    ReleaseAddresses,
    /// Tell the network where they are: gratuitous ARP, unsolicited neighbour advertisements.
    AnnounceAddresses,
    /// The state has changed: for logs and for whoever asked to be told.
    StateChanged(VrrpTransition),
}

/// What is heard of another router's advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReceivedAdvert {
    /// Whose it is.
    pub source: IpAddr,
    /// Its priority; 0 if it gives up.
    pub priority: u8,
    /// How often it advertises itself.
    pub interval: Duration,
}

impl ReceivedAdvert {
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
/// - A master that was held up for three intervals ([`TransitionReason::Stalled`]) gives up the addresses before it
///   does anything else: others may have them. It advertises nothing until it has listened as a backup.
/// - A backup whose own patience ended long ago listens once more for as long as its skew: what was
///   sent meanwhile lies unread.
/// - A master that hears one of lower priority advertises itself and announces its addresses, now
///   and [again](ElectionConfig::announce): the network may have learned the other's.
/// - A backup [may wait](PreemptMode) before it takes over from a master of lower priority.
/// - A master that is told to [stop](Self::stop) says farewell and goes on to have the addresses until
///   it hears its successor: nobody is without service between.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    priority: u8,
    state: VrrpState,
    /// When the state's timer ends: the wait before the start, patience, or the next advertisement.
    state_timer: Option<Instant>,
    /// When to announce again, and how often.
    next_announcement: Option<(Instant, u32)>,
    /// The interval of the master that was heard last (version 3).
    master_advert_interval: Duration,
    last_advert_sent: Option<Instant>,
    /// Since when a master of lower priority is put up with.
    tolerated_since: Option<Instant>,
    /// It listens a while longer because it was held up.
    has_extended_wait: bool,
    /// The master has said farewell.
    has_master_resigned: bool,
    /// It is master, has said farewell itself, and waits for its successor.
    is_stopping: bool,
    /// Its group decides whether it becomes master; would it?
    is_grouped: bool,
    is_candidate: bool,
    outputs: VecDeque<ElectionOutput>,
}

impl Election {
    /// A router that has not started.
    ///
    /// # Errors
    /// [`VrrpConfigError`] names what does not make sense.
    pub fn new(config: ElectionConfig) -> Result<Self, VrrpConfigError> {
        config.validate()?;
        Ok(Self {
            priority: config.priority,
            master_advert_interval: config.interval,
            config,
            state: VrrpState::Init,
            state_timer: None,
            next_announcement: None,
            last_advert_sent: None,
            tolerated_since: None,
            has_extended_wait: false,
            has_master_resigned: false,
            is_stopping: false,
            is_grouped: false,
            is_candidate: false,
            outputs: VecDeque::new(),
        })
    }

    /// What it is.
    #[must_use]
    pub fn state(&self) -> VrrpState {
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
        let announce = self.next_announcement.map(|(when, _)| when);
        [self.state_timer, announce].into_iter().flatten().min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.outputs.pop_front()
    }

    /// Starts, or waits until it is time to.
    pub fn start(&mut self, now: Instant) {
        if self.state != VrrpState::Init || self.state_timer.is_some() {
            return;
        }
        match self.config.start_delay {
            Duration::ZERO => self.start_now(now, TransitionReason::Requested),
            delay => self.state_timer = Some(now + delay),
        }
    }

    /// Stops. A master says farewell, so that another takes over after its skew, and has its addresses
    /// until it hears that one, or for longer than any priority would wait: an interval and a quarter.
    /// Told once more it does not wait.
    pub fn stop(&mut self, now: Instant) {
        if self.state != VrrpState::Master || self.is_stopping {
            return self.withdraw(VrrpState::Init, TransitionReason::Requested, false);
        }
        self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
        (self.is_stopping, self.next_announcement) = (true, None);
        // No skew is longer than the first part; the rest is for clocks that differ and for the way.
        self.state_timer = Some(now + self.skew_time_for(0) * 5 / 4);
    }

    /// Says that something it needs has failed, or that all of it is there.
    pub fn set_fault(&mut self, now: Instant, is_fault: bool) {
        match (is_fault, self.state) {
            (true, VrrpState::Backup | VrrpState::Master) => {
                self.withdraw(VrrpState::Fault, TransitionReason::FaultChanged, true)
            }
            (false, VrrpState::Fault) => self.start_now(now, TransitionReason::FaultChanged),
            _ => {}
        }
    }

    /// Changes its priority; 1 to 254, or the owner's 255. A master tells the others at once.
    pub fn set_priority(&mut self, now: Instant, priority: u8) {
        self.step_down_if_stalled(now);
        let priority = priority.max(1);
        if priority != std::mem::replace(&mut self.priority, priority)
            && self.state == VrrpState::Master
            && !self.is_stopping
        {
            self.advertise(now);
        }
    }

    /// Hears an advertisement for its virtual router from somebody else. In version 2 one of another
    /// interval than its own counts for nothing (RFC 3768, section 7.1).
    pub fn handle_advert(&mut self, now: Instant, heard: &ReceivedAdvert) {
        if self.config.version == VrrpVersion::V2 && heard.interval != self.config.interval {
            return;
        }
        self.step_down_if_stalled(now);
        match self.state {
            VrrpState::Init | VrrpState::Fault => {}
            VrrpState::Backup => self.handle_advert_as_backup(now, heard),
            // Whoever says that it is there has the addresses.
            VrrpState::Master if self.is_stopping && heard.priority > 0 => {
                self.withdraw(VrrpState::Init, TransitionReason::Requested, false);
            }
            VrrpState::Master if self.is_stopping => {}
            VrrpState::Master => self.handle_advert_as_master(now, heard),
        }
    }

    /// Does what is due; harmless where nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.step_down_if_stalled(now);
        if let Some(due) = self.state_timer.filter(|due| *due <= now) {
            match self.state {
                VrrpState::Init => self.start_now(now, TransitionReason::Requested),
                VrrpState::Backup => self.handle_master_down_timer(now, due),
                VrrpState::Master if self.is_stopping => {
                    self.withdraw(VrrpState::Init, TransitionReason::Requested, false)
                }
                VrrpState::Master => self.handle_advert_timer(now, due),
                VrrpState::Fault => self.state_timer = None,
            }
        }
        if let Some((when, left)) = self.next_announcement.filter(|(when, _)| *when <= now) {
            self.outputs.push_back(ElectionOutput::AnnounceAddresses);
            let next = when.max(now) + self.config.announce_interval;
            self.next_announcement = (left > 1).then(|| (next, left - 1));
        }
    }

    /// How long it waits for a master: three of its intervals, and the longer the lower its priority.
    fn master_down_interval(&self) -> Duration {
        self.master_advert_interval * MAX_MISSED_ADVERTS + self.skew_time()
    }

    fn skew_time(&self) -> Duration {
        self.skew_time_for(self.priority)
    }

    fn skew_time_for(&self, priority: u8) -> Duration {
        let unit = match self.config.version {
            // In seconds, whatever the interval.
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => self.master_advert_interval,
        };
        unit * (256 - u32::from(priority)) / 256
    }

    fn is_owner(&self) -> bool {
        self.priority == 255
    }

    /// Takes part from now on.
    fn start_now(&mut self, now: Instant, why: TransitionReason) {
        self.master_advert_interval = self.config.interval;
        self.become_backup(now, why);
        if self.is_owner() && !self.is_grouped {
            self.become_master(now, TransitionReason::AddressOwner);
        } else if self.is_owner() {
            self.state_timer = Some(now);
        }
    }

    /// Becomes backup.
    fn become_backup(&mut self, now: Instant, why: TransitionReason) {
        (
            self.tolerated_since,
            self.has_extended_wait,
            self.has_master_resigned,
            self.is_candidate,
        ) = (None, false, false, false);
        self.state_timer = Some(now + self.master_down_interval());
        self.next_announcement = None;
        self.set_state(VrrpState::Backup, why);
    }

    /// Becomes master.
    fn become_master(&mut self, now: Instant, why: TransitionReason) {
        self.is_candidate = false;
        self.advertise(now);
        self.outputs.push_back(ElectionOutput::AcquireAddresses);
        self.announce(now);
        self.set_state(VrrpState::Master, why);
    }

    /// Takes no part any more; a master gives up what it has, and may say so.
    fn withdraw(&mut self, to: VrrpState, why: TransitionReason, says_so: bool) {
        if self.state == VrrpState::Master {
            if says_so {
                self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
            }
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
        }
        (self.state_timer, self.next_announcement, self.is_candidate, self.is_stopping) =
            (None, None, false, false);
        self.set_state(to, why);
    }

    fn set_state(&mut self, to: VrrpState, why: TransitionReason) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            self.outputs.push_back(ElectionOutput::StateChanged(VrrpTransition {
                from,
                to,
                reason: why,
            }));
        }
    }

    fn advertise(&mut self, now: Instant) {
        self.outputs.push_back(ElectionOutput::SendAdvert { priority: self.priority });
        self.last_advert_sent = Some(now);
        self.state_timer = Some(now + self.config.interval);
    }

    fn announce(&mut self, now: Instant) {
        self.outputs.push_back(ElectionOutput::AnnounceAddresses);
        let again = self.config.announce_repeats;
        self.next_announcement = (again > 0).then(|| (now + self.config.announce_interval, again));
    }

    fn handle_advert_as_backup(&mut self, now: Instant, heard: &ReceivedAdvert) {
        if heard.priority == 0 {
            // Whoever has the highest priority is the first to take over.
            self.state_timer = Some(now + self.skew_time());
            (self.has_extended_wait, self.has_master_resigned, self.tolerated_since) =
                (true, true, None);
            return;
        }
        if heard.priority >= self.priority {
            self.tolerated_since = None;
        } else if !self.is_preemption_held_back(now) {
            return;
        }
        if self.config.version == VrrpVersion::V3 {
            self.master_advert_interval = heard.interval;
        }
        (self.has_extended_wait, self.has_master_resigned, self.is_candidate) =
            (false, false, false);
        self.state_timer = Some(now + self.master_down_interval());
    }

    /// Does it leave a master of lower priority where it is?
    fn is_preemption_held_back(&mut self, now: Instant) -> bool {
        match self.config.preempt {
            PreemptMode::Always => false,
            PreemptMode::Never => true,
            PreemptMode::After(delay) => {
                let since = *self.tolerated_since.get_or_insert(now);
                now.saturating_duration_since(since) < delay
            }
        }
    }

    fn handle_advert_as_master(&mut self, now: Instant, heard: &ReceivedAdvert) {
        let goes_before = heard.priority > self.priority
            || (heard.priority == self.priority && heard.source > self.config.source);
        if heard.priority == 0 {
            // Another that thought itself master is gone: the network may have learned its addresses.
            self.advertise(now);
            self.announce(now);
        } else if goes_before {
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            if self.config.version == VrrpVersion::V3 {
                self.master_advert_interval = heard.interval;
            }
            let &ReceivedAdvert { priority, source, .. } = heard;
            self.become_backup(now, TransitionReason::HigherPriority { priority, source });
        } else {
            self.advertise(now);
            self.announce(now);
        }
    }

    /// No master was heard for as long as it waits.
    fn handle_master_down_timer(&mut self, now: Instant, due: Instant) {
        let late = now.saturating_duration_since(due);
        if late > self.master_advert_interval && !self.has_extended_wait {
            self.has_extended_wait = true;
            self.state_timer = Some(now + self.skew_time());
        } else if self.is_grouped {
            self.is_candidate = true;
            self.state_timer = Some(now + self.master_down_interval());
        } else {
            self.become_master(now, self.master_reason());
        }
    }

    /// Why it would be master.
    fn master_reason(&self) -> TransitionReason {
        match (self.is_owner(), self.has_master_resigned) {
            (true, _) => TransitionReason::AddressOwner,
            (false, true) => TransitionReason::MasterResigned,
            (false, false) => TransitionReason::MasterTimeout,
        }
    }

    /// Ahead of all that a master does: were the others without word for so long that one of them may
    /// have taken over?
    fn step_down_if_stalled(&mut self, now: Instant) {
        if self.state != VrrpState::Master || self.is_stopping {
            return;
        }
        let silent = self.last_advert_sent.map(|sent| now.saturating_duration_since(sent));
        if let Some(silent) =
            silent.filter(|silent| *silent >= self.config.interval * MAX_MISSED_ADVERTS)
        {
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            self.become_backup(now, TransitionReason::Stalled(silent));
        }
    }

    /// It is time for the next advertisement.
    fn handle_advert_timer(&mut self, now: Instant, due: Instant) {
        self.advertise(now);
        // The beat is kept, though one was late.
        self.state_timer = Some((due + self.config.interval).max(now));
    }

    // What its group does with it.

    pub(super) fn set_grouped(&mut self) {
        self.is_grouped = true;
    }

    pub(super) fn is_candidate(&self) -> bool {
        self.is_candidate
    }

    pub(super) fn become_master_with_group(&mut self, now: Instant) {
        if self.state == VrrpState::Backup {
            self.become_master(now, self.master_reason());
        }
    }

    pub(super) fn step_down_with_group(&mut self, now: Instant) {
        if self.is_stopping {
            self.withdraw(VrrpState::Init, TransitionReason::Requested, false);
        } else if self.state == VrrpState::Master {
            self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            self.become_backup(now, TransitionReason::SyncGroup);
        }
    }
}
