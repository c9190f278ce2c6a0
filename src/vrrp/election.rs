//! The election of one virtual router on one machine, as a state machine without socket and clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::config::{OWNER_PRIORITY, validate_priority};
use super::{
    ElectionConfig, ElectionOutput, PreemptMode, ReceivedAdvert, TransitionReason, VrrpConfigError,
    VrrpState, VrrpTransition, VrrpVersion,
};

/// The number of advertisements that may be missed before the master is considered dead.
const MAX_MISSED_ADVERTS: u32 = 3;

/// The election of one virtual router on one machine.
///
/// Call the methods that take the time for each input; the time must not go back. Call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), and after each
/// input take the actions that [`poll_output`](Self::poll_output) returns. No method blocks or does
/// input or output.
///
/// # Differences from the RFC
/// - A master that stalled for three intervals ([`TransitionReason::Stalled`]) first releases the
///   addresses, because another router may have them. It sends no advertisement until it has waited
///   as a backup.
/// - A backup whose master-down interval ended long ago waits for its skew time once more, because
///   advertisements from meanwhile may be unread.
/// - A master that receives an advertisement of lower priority advertises and announces its addresses,
///   now and [repeatedly](ElectionConfig::announce_repeats), because the network may have learned the
///   other router's.
/// - A backup [may wait](PreemptMode) before it replaces a master of lower priority.
/// - A master that is [stopped](Self::stop) resigns and keeps the addresses until it receives its
///   successor's advertisement, so that service is not interrupted.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    priority: u8,
    state: VrrpState,
    /// The end of the state's timer: start delay, master-down interval, or advertisement interval.
    state_timer: Option<Instant>,
    /// The time of the next announcement, and the number of announcements left.
    next_announcement: Option<(Instant, u32)>,
    /// The interval in the last master's advertisements (version 3).
    master_advert_interval: Duration,
    last_advert_sent: Option<Instant>,
    /// When advertisements from a master of lower priority began, while preemption is held back.
    tolerated_since: Option<Instant>,
    /// The master of lower priority that advertised since the master-down timer was restarted.
    preempted_master: Option<ReceivedAdvert>,
    /// The master-down timer was extended because this router stalled.
    has_extended_wait: bool,
    /// Masters of lower priority keep the addresses for now, whatever [`PreemptMode`] says.
    is_preemption_held: bool,
    /// The master sent priority 0.
    has_master_resigned: bool,
    /// This router is master, has resigned, and waits for its successor.
    is_stopping: bool,
    /// The sync group decides when this router becomes master.
    is_grouped: bool,
    /// This router would become master if it were alone.
    is_candidate: bool,
    /// The tracked item that is down, in state [`VrrpState::Fault`].
    fault: Option<String>,
    outputs: VecDeque<ElectionOutput>,
}

impl Election {
    /// Creates an election that has not started.
    ///
    /// # Errors
    /// [`VrrpConfigError`] names the setting that is not valid.
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
            preempted_master: None,
            has_extended_wait: false,
            is_preemption_held: false,
            has_master_resigned: false,
            is_stopping: false,
            is_grouped: false,
            is_candidate: false,
            fault: None,
            outputs: VecDeque::new(),
        })
    }

    /// Changes the settings while the election runs; number, source address and version stay those of
    /// the start. The state stays too. The priority is that of [`set_priority`](Self::set_priority). A
    /// master advertises another interval at once.
    ///
    /// # Errors
    /// [`VrrpConfigError`] names the setting that is not valid; nothing changes then.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        config: ElectionConfig,
    ) -> Result<(), VrrpConfigError> {
        let ElectionConfig { vrid, source, version, .. } = self.config;
        let config = ElectionConfig { vrid, source, version, ..config };
        config.validate()?;
        let has_interval_changed = config.interval != self.config.interval;
        self.config = config;
        if has_interval_changed {
            match self.state {
                VrrpState::Master if !self.is_stopping => self.advertise(now),
                // In version 3 the interval of the master counts.
                VrrpState::Backup if version == VrrpVersion::V2 => {
                    self.master_advert_interval = self.config.interval;
                    self.state_timer = Some(now + self.master_down_interval());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds preemption back, or allows it again: for a router that is not ready yet. It becomes master
    /// all the same if there is none.
    pub fn hold_preemption(&mut self, is_held: bool) {
        self.is_preemption_held = is_held;
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> VrrpState {
        self.state
    }

    /// Returns the current priority.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due, if a timer runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let announcement = self.next_announcement.map(|(due, _)| due);
        [self.state_timer, announcement].into_iter().flatten().min()
    }

    /// Returns the next action to take.
    pub fn poll_output(&mut self) -> Option<ElectionOutput> {
        self.outputs.pop_front()
    }

    /// Starts the election, after the [start delay](ElectionConfig::start_delay) if there is one.
    pub fn start(&mut self, now: Instant) {
        if self.state != VrrpState::Init || self.state_timer.is_some() {
            return;
        }
        match self.config.start_delay {
            Duration::ZERO => self.start_now(now, TransitionReason::Started),
            delay => self.state_timer = Some(now + delay),
        }
    }

    /// Stops the election. A master resigns, so that a backup takes over after its skew time, and
    /// keeps the addresses until it receives that router's advertisement, or for longer than a router
    /// of any priority waits: an interval and a quarter. A second call releases them at once.
    pub fn stop(&mut self, now: Instant) {
        if self.state != VrrpState::Master || self.is_stopping {
            return self.withdraw(VrrpState::Init, TransitionReason::Stopped, false);
        }
        self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
        (self.is_stopping, self.next_announcement) = (true, None);
        // No skew time exceeds the first part; the rest is for clock differences and transmission.
        self.state_timer = Some(now + self.skew_time_for(0) * 5 / 4);
    }

    /// Sets the name of a tracked item that is down and without which this router cannot be master;
    /// `None` if there is none. A master resigns at a fault.
    pub fn set_fault(&mut self, now: Instant, fault: Option<&str>) {
        match (fault, self.state) {
            (Some(track), VrrpState::Backup | VrrpState::Master) => {
                self.fault = Some(track.to_owned());
                let reason = TransitionReason::Fault { track: track.to_owned() };
                self.withdraw(VrrpState::Fault, reason, true);
            }
            (Some(track), VrrpState::Fault) if self.fault.as_deref() != Some(track) => {
                self.fault = Some(track.to_owned());
            }
            (None, VrrpState::Fault) => {
                let track = self.fault.take().unwrap_or_default();
                self.start_now(now, TransitionReason::FaultCleared { track });
            }
            _ => {}
        }
    }

    /// Changes the priority: 1 to 254, or the owner's 255. A master advertises a change at once.
    ///
    /// # Errors
    /// [`VrrpConfigError::Priority`] if the priority is 0; nothing changes then.
    pub fn set_priority(&mut self, now: Instant, priority: u8) -> Result<(), VrrpConfigError> {
        validate_priority(priority)?;
        self.step_down_if_stalled(now);
        if priority != std::mem::replace(&mut self.priority, priority)
            && self.state == VrrpState::Master
            && !self.is_stopping
        {
            self.advertise(now);
        }
        Ok(())
    }

    /// Handles another router's advertisement for this virtual router. In version 2, an advertisement
    /// with another interval than the configured is ignored (RFC 3768, section 7.1).
    pub fn handle_advert(&mut self, now: Instant, advert: &ReceivedAdvert) {
        if self.config.version == VrrpVersion::V2 && advert.interval != self.config.interval {
            return;
        }
        self.step_down_if_stalled(now);
        match self.state {
            VrrpState::Init | VrrpState::Fault => {}
            VrrpState::Backup => self.handle_advert_as_backup(now, advert),
            // Whatever its priority, a router that advertises holds the addresses.
            VrrpState::Master if self.is_stopping && advert.priority > 0 => {
                self.withdraw(VrrpState::Init, TransitionReason::Stopped, false);
            }
            VrrpState::Master if self.is_stopping => {}
            VrrpState::Master => self.handle_advert_as_master(now, advert),
        }
    }

    /// Handles the timers that have ended, if any.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.step_down_if_stalled(now);
        if let Some(due) = self.state_timer.filter(|due| *due <= now) {
            match self.state {
                VrrpState::Init => self.start_now(now, TransitionReason::Started),
                VrrpState::Backup => self.handle_master_down_timer(now, due),
                VrrpState::Master if self.is_stopping => {
                    self.withdraw(VrrpState::Init, TransitionReason::Stopped, false)
                }
                VrrpState::Master => self.handle_advert_timer(now, due),
                VrrpState::Fault => self.state_timer = None,
            }
        }
        if let Some((due, left)) = self.next_announcement.filter(|(due, _)| *due <= now) {
            self.outputs.push_back(ElectionOutput::AnnounceAddresses);
            let next = due.max(now) + self.config.announce_interval;
            self.next_announcement = (left > 1).then(|| (next, left - 1));
        }
    }

    /// Returns `Active_Down_Interval` (RFC 9568, section 6.1): three of the master's intervals, and
    /// the skew time.
    fn master_down_interval(&self) -> Duration {
        self.master_advert_interval * MAX_MISSED_ADVERTS + self.skew_time()
    }

    fn skew_time(&self) -> Duration {
        self.skew_time_for(self.priority)
    }

    fn skew_time_for(&self, priority: u8) -> Duration {
        let unit = match self.config.version {
            // RFC 3768 has the skew time in seconds, whatever the interval.
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => self.master_advert_interval,
        };
        unit * (256 - u32::from(priority)) / 256
    }

    fn is_owner(&self) -> bool {
        self.priority == OWNER_PRIORITY
    }

    fn start_now(&mut self, now: Instant, reason: TransitionReason) {
        self.master_advert_interval = self.config.interval;
        self.become_backup(now, reason);
        if self.is_owner() && !self.is_grouped {
            self.become_master(now, TransitionReason::AddressOwner);
        } else if self.is_owner() {
            self.state_timer = Some(now);
        }
    }

    fn become_backup(&mut self, now: Instant, reason: TransitionReason) {
        (self.tolerated_since, self.preempted_master) = (None, None);
        (self.has_extended_wait, self.has_master_resigned, self.is_candidate) =
            (false, false, false);
        self.state_timer = Some(now + self.master_down_interval());
        self.next_announcement = None;
        self.set_state(VrrpState::Backup, reason);
    }

    fn become_master(&mut self, now: Instant, reason: TransitionReason) {
        self.is_candidate = false;
        self.advertise(now);
        self.outputs.push_back(ElectionOutput::AcquireAddresses);
        self.announce(now);
        self.set_state(VrrpState::Master, reason);
    }

    /// Leaves the election; a master releases the addresses, and resigns if it `resigns`.
    fn withdraw(&mut self, to: VrrpState, reason: TransitionReason, resigns: bool) {
        if self.state == VrrpState::Master {
            if resigns {
                self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
            }
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
        }
        (self.state_timer, self.next_announcement, self.is_candidate, self.is_stopping) =
            (None, None, false, false);
        self.set_state(to, reason);
    }

    fn set_state(&mut self, to: VrrpState, reason: TransitionReason) {
        let from = std::mem::replace(&mut self.state, to);
        if from != to {
            let transition = VrrpTransition { from, to, reason };
            self.outputs.push_back(ElectionOutput::StateChanged(transition));
        }
    }

    fn advertise(&mut self, now: Instant) {
        self.outputs.push_back(ElectionOutput::SendAdvert { priority: self.priority });
        self.last_advert_sent = Some(now);
        self.state_timer = Some(now + self.config.interval);
    }

    fn announce(&mut self, now: Instant) {
        self.outputs.push_back(ElectionOutput::AnnounceAddresses);
        let repeats = self.config.announce_repeats;
        self.next_announcement =
            (repeats > 0).then(|| (now + self.config.announce_interval, repeats));
    }

    fn handle_advert_as_backup(&mut self, now: Instant, advert: &ReceivedAdvert) {
        if advert.priority == 0 {
            // Of several backups the one with the highest priority has the shortest skew time.
            self.state_timer = Some(now + self.skew_time());
            (self.has_extended_wait, self.has_master_resigned) = (true, true);
            (self.tolerated_since, self.preempted_master) = (None, None);
            return;
        }
        if advert.priority >= self.priority {
            self.tolerated_since = None;
        } else if !self.is_preemption_held_back(now) {
            self.preempted_master = Some(*advert);
            return;
        }
        if self.config.version == VrrpVersion::V3 {
            self.master_advert_interval = advert.interval;
        }
        (self.has_extended_wait, self.has_master_resigned, self.is_candidate) =
            (false, false, false);
        self.preempted_master = None;
        self.state_timer = Some(now + self.master_down_interval());
    }

    /// Tells whether a master of lower priority keeps the addresses for now.
    fn is_preemption_held_back(&mut self, now: Instant) -> bool {
        match self.config.preempt {
            _ if self.is_preemption_held => true,
            PreemptMode::Always => false,
            PreemptMode::Never => true,
            PreemptMode::After(delay) => {
                let since = *self.tolerated_since.get_or_insert(now);
                now.saturating_duration_since(since) < delay
            }
        }
    }

    fn handle_advert_as_master(&mut self, now: Instant, advert: &ReceivedAdvert) {
        let &ReceivedAdvert { priority, source, .. } = advert;
        let has_precedence =
            priority > self.priority || (priority == self.priority && source > self.config.source);
        if priority > 0 && has_precedence {
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            if self.config.version == VrrpVersion::V3 {
                self.master_advert_interval = advert.interval;
            }
            self.become_backup(now, TransitionReason::HigherPriority { priority, source });
        } else {
            // The other router was master too, and the network may have learned its addresses.
            self.advertise(now);
            self.announce(now);
        }
    }

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

    /// Returns the reason why this router becomes master when its master-down timer ends.
    fn master_reason(&self) -> TransitionReason {
        match self.preempted_master {
            _ if self.is_owner() => TransitionReason::AddressOwner,
            Some(ReceivedAdvert { priority, source, .. }) => {
                TransitionReason::Preempted { priority, source }
            }
            None if self.has_master_resigned => TransitionReason::MasterResigned,
            None => TransitionReason::MasterTimeout,
        }
    }

    /// Releases the addresses if this master sent no advertisement for so long that another router may
    /// have taken over. Every input of a master is handled after this check.
    fn step_down_if_stalled(&mut self, now: Instant) {
        if self.state != VrrpState::Master || self.is_stopping {
            return;
        }
        let silence = self.last_advert_sent.map(|sent| now.saturating_duration_since(sent));
        let limit = self.config.interval * MAX_MISSED_ADVERTS;
        if let Some(silence) = silence.filter(|silence| *silence >= limit) {
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            self.become_backup(now, TransitionReason::Stalled(silence));
        }
    }

    fn handle_advert_timer(&mut self, now: Instant, due: Instant) {
        self.advertise(now);
        // The period is kept, although this advertisement was late.
        self.state_timer = Some((due + self.config.interval).max(now));
    }

    // For the sync group.

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
            self.withdraw(VrrpState::Init, TransitionReason::Stopped, false);
        } else if self.state == VrrpState::Master {
            self.outputs.push_back(ElectionOutput::SendAdvert { priority: 0 });
            self.outputs.push_back(ElectionOutput::ReleaseAddresses);
            self.become_backup(now, TransitionReason::SyncGroup);
        }
    }
}
