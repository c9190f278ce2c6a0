//! The machine that ejects.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::counters::EjectionCounters;
use super::detect::{self, Window};
use super::table::Table;
use super::{Cause, Ejection, EjectionError, SavedEjection, SavedPhase};
use crate::backend::Outcomes;
use crate::scheduler::Rng;

/// What a sweep is told of one member.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Who it is: a number that is never used twice in one set.
    pub serial: u64,
    /// How its leases have ended since it was made. The sweep takes the difference to the last one.
    pub outcomes: Outcomes,
    /// Its mean latency since the last sweep, if known.
    pub latency: Option<Duration>,
    /// Whether its operator lets it take new work: enabled, and of a weight above 0.
    pub enabled: bool,
    /// Whether active checks say that it is up.
    pub up: bool,
}

/// What is held against a member between sweeps, by who counts its failures as they happen.
///
/// A number at or above its threshold ejects; others are ignored. Where the cap
/// [refuses](EjectionCounters::refused) an ejection nothing is remembered: say it again as the run
/// goes on, for instance at each multiple of the threshold.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Accusation {
    /// Its failures of any kind in a row up to now.
    pub consecutive: u32,
    /// Its connects in a row up to now that failed or timed out.
    pub connect: u32,
}

/// What is to be done about one member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "who ignores a decision lets the machine and the set go apart"]
pub struct Decision {
    /// Whom it is about.
    pub serial: u64,
    /// What to do.
    pub action: Action,
}

/// What a [`Decision`] says to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Give it no new work.
    Eject {
        /// When its trial is due.
        until: Instant,
        /// What it did.
        why: Cause,
    },
    /// Give it one piece of work, and say [how that ended](Ejector::trial_ended).
    Trial,
    /// Give it work again, by its [ramp](Ejection::ramp).
    Return,
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Takes part.
    In,
    /// Takes no work.
    Out {
        /// When its trial is due.
        until: Instant,
        /// What it did.
        why: Cause,
    },
    /// Is given one piece of work.
    Trial {
        /// What it was ejected for.
        why: Cause,
    },
}

/// How a member stands with an [`Ejector`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Standing {
    /// Whether it is in, out or on trial.
    pub phase: Phase,
    /// Ejections in a row, less one for each healthy sweep since: what the base time is multiplied
    /// by.
    pub multiplier: u32,
}

/// Decides who is ejected, until when, and when to try again: a machine without clock or thread.
///
/// It is told what happens and answers with [`Decision`]s, all of which are to be carried out. It
/// knows the members it was [told of](Self::track) or has seen in a [sweep](Self::sweep), and never
/// decides about others. Moments may come in any order; with one that lies before the last nothing
/// ends early.
///
/// # Cost
/// One entry of some 200 bytes for each member. A sweep sorts: `O(n log n)`; everything else is
/// `O(log n)`.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use lvs::health::outlier::{Accusation, Action, Ejection, Ejector};
/// use lvs::scheduler::Rng;
///
/// let mut ejector = Ejector::new(Ejection::new(), Rng::with_seed(1))?;
/// for serial in 1..=3 {
///     ejector.track(serial, true, true);
/// }
/// # #[expect(clippy::disallowed_methods, reason = "an example has a clock")]
/// let now = Instant::now();
///
/// let accusation = Accusation { consecutive: 5, connect: 0 };
/// let decision = ejector.accuse(now, 2, accusation).expect("5 in a row are too many");
/// let Action::Eject { until, why } = decision.action else { unreachable!() };
/// assert_eq!((until - now, why.to_string()), (Duration::from_secs(30), "5 failures in a row".into()));
///
/// assert_eq!(ejector.poll_timeout(), Some(until));
/// assert_eq!(ejector.handle_timeout(until)[0].action, Action::Trial);
/// assert_eq!(ejector.trial_ended(until, 2, true).expect("was on trial").action, Action::Return);
/// # Ok::<(), lvs::health::EjectionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ejector {
    rules: Ejection,
    rng: Rng,
    table: Table,
    counters: EjectionCounters,
}

impl Ejector {
    /// A machine that knows nobody yet; the random generator is for [jitter](Ejection::jitter) alone.
    ///
    /// # Errors
    /// [`EjectionError`] names the rule that makes no sense.
    pub fn new(rules: Ejection, rng: Rng) -> Result<Self, EjectionError> {
        rules.validate()?;
        let (table, counters) = (Table::default(), EjectionCounters::default());
        Ok(Self { rules, rng, table, counters })
    }

    /// The rules it goes by.
    pub fn rules(&self) -> &Ejection {
        &self.rules
    }

    /// Goes by other rules from now on. Whoever is out stays out until the moment that was decided.
    ///
    /// # Errors
    /// [`EjectionError`] names the rule that makes no sense; the old ones stay.
    pub fn set_rules(&mut self, rules: Ejection) -> Result<(), EjectionError> {
        rules.validate()?;
        let most = rules.max_multiplier();
        self.rules = rules;
        for serial in self.table.serials() {
            if let Some(entry) = self.table.get_mut(serial) {
                entry.multiplier = entry.multiplier.min(most);
            }
        }
        Ok(())
    }

    /// Tells of a member: that it is there, whether its operator lets it take new work, and whether
    /// active checks say that it is up.
    ///
    /// For members that join and states that change between two sweeps, so that the cap is always
    /// that of the moment.
    pub fn track(&mut self, serial: u64, enabled: bool, up: bool) {
        self.table.put(serial, enabled && up);
    }

    /// Compares the members with each other, by what they did since the last sweep.
    ///
    /// `samples` are all members of the set: whoever is not among them is
    /// [forgotten](Self::forget). The first sample of a member is what the next is compared with;
    /// it is not judged by it. Of members that cannot serve, are out or on trial nothing is judged,
    /// and they are no part of any mean. Where more are outliers than may be out, the worst go
    /// first: who fails before who is slow, the larger share of failures first, then the more
    /// failures, among the slow the larger multiple of the others' median, then the member that is
    /// longest in the set.
    ///
    /// Whoever is in and no outlier has its multiplier shrink by one.
    pub fn sweep(&mut self, now: Instant, samples: &[Sample]) -> Vec<Decision> {
        let present: BTreeSet<u64> = samples.iter().map(|sample| sample.serial).collect();
        for serial in self.table.serials() {
            if !present.contains(&serial) {
                self.forget(serial);
            }
        }
        let windows: Vec<Window> =
            samples.iter().filter_map(|sample| self.take_sample(sample)).collect();
        let mut outlying = BTreeSet::new();
        let mut decisions = Vec::new();
        for outlier in detect::outliers(&self.rules, &windows) {
            if outlying.insert(outlier.serial) {
                decisions.extend(self.eject(now, outlier.serial, outlier.cause));
            }
        }
        for serial in present {
            if let Some(entry) = self.table.get_mut(serial)
                && entry.phase() == Phase::In
                && !outlying.contains(&serial)
            {
                entry.multiplier = entry.multiplier.saturating_sub(1);
            }
        }
        decisions
    }

    /// Notes a sample, and gives what is to be judged of it.
    fn take_sample(&mut self, sample: &Sample) -> Option<Window> {
        self.track(sample.serial, sample.enabled, sample.up);
        let entry = self.table.get_mut(sample.serial)?;
        let before = entry.seen.replace(sample.outcomes)?;
        let judged = entry.serves() && entry.phase() == Phase::In;
        let window = Window::between(sample.serial, before, sample.outcomes, sample.latency);
        window.filter(|_| judged)
    }

    /// Takes what is held against a member, as it happens.
    ///
    /// Nothing comes of it while the member is out or on trial (what was in its hands may fail for a
    /// while), nor while it cannot serve.
    pub fn accuse(
        &mut self,
        now: Instant,
        serial: u64,
        accusation: Accusation,
    ) -> Option<Decision> {
        let Accusation { consecutive, connect } = accusation;
        let reached = |threshold: Option<u32>, run| threshold.is_some_and(|it| run >= it);
        let cause = if reached(self.rules.connect, connect) {
            Cause::ConnectFailures { failures: connect }
        } else if reached(self.rules.consecutive, consecutive) {
            Cause::ConsecutiveFailures { failures: consecutive }
        } else {
            return None;
        };
        self.eject(now, serial, cause)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due: at the end of the next ejection. `None`
    /// while nobody is out. Sweeps are not among it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.table.next_end()
    }

    /// Offers a trial to everybody whose ejection has ended by now, whether it can serve or not.
    ///
    /// A trial has no end but the [word](Self::trial_ended) about it: who gets no traffic, or is
    /// down by its checks, stays on trial until it gets some.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Decision> {
        let mut decisions = Vec::new();
        while let Some((serial, why)) =
            self.table.ended(now).and_then(|serial| Some((serial, self.table.cause(serial)?)))
        {
            self.table.set_phase(serial, Phase::Trial { why });
            self.counters.trials += 1;
            decisions.push(Decision { serial, action: Action::Trial });
        }
        decisions
    }

    /// Says how the one piece of work of a trial ended: it returns, or is ejected anew, for longer.
    ///
    /// For a piece that says nothing (cancelled) do not call this, and give it another. Nothing
    /// comes of it unless the member is on trial. A new ejection here is not subject to the cap: it
    /// puts nobody out who was in.
    pub fn trial_ended(&mut self, now: Instant, serial: u64, ok: bool) -> Option<Decision> {
        let Phase::Trial { .. } = self.table.get(serial)?.phase() else { return None };
        if ok { self.bring_back(serial) } else { self.put_out(now, serial, Cause::TrialFailed) }
    }

    /// Says that an active check of a member passed; it returns at once if that is
    /// [configured](Ejection::check_ends_ejection). Its multiplier stays.
    pub fn check_passed(&mut self, serial: u64) -> Option<Decision> {
        if self.rules.check_returns { self.bring_back(serial) } else { None }
    }

    /// Lets a member return on the operator's word, with all forgiven.
    pub fn release(&mut self, serial: u64) -> Option<Decision> {
        self.table.get_mut(serial)?.multiplier = 0;
        self.bring_back(serial)
    }

    /// Forgets a member that has left the set.
    pub fn forget(&mut self, serial: u64) {
        let entry = self.table.remove(serial);
        if entry.is_some_and(|entry| entry.phase() != Phase::In) {
            self.counters.forgotten += 1;
        }
    }

    /// How a member stands; `None` if it is not known.
    #[must_use]
    pub fn standing(&self, serial: u64) -> Option<Standing> {
        let entry = self.table.get(serial)?;
        Some(Standing { phase: entry.phase(), multiplier: entry.multiplier })
    }

    /// What it has decided so far.
    #[must_use]
    pub fn counters(&self) -> EjectionCounters {
        let (out, on_trial) = (self.table.out() as u64, self.table.on_trial() as u64);
        EjectionCounters { out, on_trial, ..self.counters }
    }

    /// How everybody stands of whom there is anything to remember, by serial.
    pub fn export(&self, now: Instant) -> impl Iterator<Item = (u64, SavedEjection)> + '_ {
        self.table.iter().filter_map(move |(serial, entry)| {
            let phase = match entry.phase() {
                Phase::In if entry.multiplier == 0 => return None,
                Phase::In => SavedPhase::In,
                Phase::Out { until, why } => {
                    SavedPhase::Out { remaining: until.saturating_duration_since(now), why }
                }
                Phase::Trial { why } => SavedPhase::Trial { why },
            };
            Some((serial, SavedEjection { multiplier: entry.multiplier, phase }))
        })
    }

    /// Takes over how a member stood, in another process or under other rules.
    ///
    /// [Tell of](Self::track) all members first, so that the cap is that of the whole set. It holds
    /// here as for every ejection, and so does the longest time. Nothing comes of it for a member
    /// that is not known, or that is out or on trial already.
    pub fn import(&mut self, now: Instant, serial: u64, saved: SavedEjection) -> Option<Decision> {
        let most = self.rules.max_multiplier();
        let room = self.has_room();
        let entry = self.table.get_mut(serial).filter(|entry| entry.phase() == Phase::In)?;
        entry.multiplier = saved.multiplier.min(most);
        let (SavedPhase::Out { why, .. } | SavedPhase::Trial { why }) = saved.phase else {
            return None;
        };
        // Who cannot serve takes no one's place.
        if entry.serves() && !room {
            self.counters.refused.count(why);
            return None;
        }
        self.counters.restored += 1;
        let (phase, action) = if let SavedPhase::Out { remaining, .. } = saved.phase {
            let longest = self.rules.cap.saturating_add(self.rules.jitter);
            let until = later(now, remaining.min(longest));
            (Phase::Out { until, why }, Action::Eject { until, why })
        } else {
            self.counters.trials += 1;
            (Phase::Trial { why }, Action::Trial)
        };
        self.table.set_phase(serial, phase);
        Some(Decision { serial, action })
    }

    /// Puts a member out that is in and can serve, if the cap lets it.
    fn eject(&mut self, now: Instant, serial: u64, cause: Cause) -> Option<Decision> {
        let entry = self.table.get(serial)?;
        if entry.phase() != Phase::In || !entry.serves() {
            return None;
        }
        if !self.has_room() {
            self.counters.refused.count(cause);
            return None;
        }
        self.put_out(now, serial, cause)
    }

    /// Whether one more of those who could serve may be out, and one would still be left.
    fn has_room(&self) -> bool {
        let (serving, out) = (self.table.serving(), self.table.serving_out());
        out < self.rules.max_ejected(serving) && out + 1 < serving
    }

    fn put_out(&mut self, now: Instant, serial: u64, why: Cause) -> Option<Decision> {
        let most = self.rules.max_multiplier();
        let entry = self.table.get_mut(serial)?;
        entry.multiplier = entry.multiplier.saturating_add(1).min(most);
        let time = self.rules.time_of(entry.multiplier).saturating_add(self.jitter());
        let until = later(now, time);
        self.table.set_phase(serial, Phase::Out { until, why });
        self.counters.ejected.count(why);
        Some(Decision { serial, action: Action::Eject { until, why } })
    }

    fn bring_back(&mut self, serial: u64) -> Option<Decision> {
        if self.table.get(serial)?.phase() == Phase::In {
            return None;
        }
        self.table.set_phase(serial, Phase::In);
        self.counters.returned += 1;
        Some(Decision { serial, action: Action::Return })
    }

    fn jitter(&mut self) -> Duration {
        // A day at the most, which fits.
        let most = self.rules.jitter.as_nanos() as u64;
        if most == 0 { Duration::ZERO } else { Duration::from_nanos(self.rng.below(most + 1)) }
    }
}

/// A moment that the clock cannot reach counts as now: out for ever is no ejection.
fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}
