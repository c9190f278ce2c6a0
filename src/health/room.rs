//! One service: what its checks and its traffic come to, and when its set is told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::EventKind;
use super::outlier::{Accusation, Action, Decision, Ejector, SavedEjection};
use super::service::{Ruling, Seen, Service, Word};
use super::timetable::ProbeId;
use crate::backend::{Standing, Trial};
use crate::scheduler::Rng;

/// How long to wait after a scheduler has refused what was to be published.
const RETRY: Duration = Duration::from_secs(1);

/// A service, and what is known of its members.
pub(super) struct Room {
    pub(super) service: Arc<dyn Service>,
    pub(super) members: HashMap<u64, Member>,
    /// What its set is to be told.
    pub(super) words: HashMap<u64, Word>,
    rulings: HashMap<u64, Ruling>,
    /// Not to be told before: that failed, or it was told a moment ago.
    quiet_until: Option<Instant>,
    /// When its slow starts move on.
    pub(super) tick_at: Option<Instant>,
    judge: Option<Judge>,
}

/// A member, and who asks it.
pub(super) struct Member {
    pub(super) seen: Seen,
    pub(super) probes: Vec<ProbeId>,
}

/// The ejector, and the moments that it leaves to others.
struct Judge {
    ejector: Ejector,
    sweep_at: Option<Instant>,
    /// The members whose trial goes on, and since when.
    trials: HashMap<u64, Instant>,
}

impl Room {
    pub(super) fn new(service: Arc<dyn Service>) -> Self {
        let ejection = service.plan().ejection.clone();
        // The plan was found sound.
        let ejector = ejection.and_then(|it| Ejector::new(it, Rng::from_entropy()).ok());
        let judge =
            ejector.map(|ejector| Judge { ejector, sweep_at: None, trials: HashMap::new() });
        Self {
            service,
            members: HashMap::new(),
            words: HashMap::new(),
            rulings: HashMap::new(),
            quiet_until: None,
            tick_at: None,
            judge,
        }
    }

    /// A member was taken out.
    pub(super) fn forget(&mut self, serial: u64) {
        self.words.remove(&serial);
        self.rulings.remove(&serial);
        if let Some(judge) = &mut self.judge {
            judge.ejector.forget(serial);
            judge.trials.remove(&serial);
        }
    }

    /// The set was changed: who may be ejected, and how many, is another matter now.
    pub(super) fn recount(&mut self, now: Instant) {
        let Some(judge) = &mut self.judge else { return };
        for sample in self.service.samples(now) {
            judge.ejector.track(sample.serial, sample.enabled, sample.up);
        }
    }

    /// Looks at what traffic says of the members.
    pub(super) fn judge(&mut self, now: Instant) {
        let Some(judge) = &mut self.judge else { return };
        let decisions = judge.decide(&*self.service, now);
        decisions.into_iter().for_each(|decision| self.rule(decision, now));
    }

    /// When to [judge](Self::judge) again, if nobody raises a hand before.
    pub(super) fn judge_at(&self) -> Option<Instant> {
        let judge = self.judge.as_ref()?;
        let patience = judge.ejector.rules().patience();
        let trials = judge.trials.values().filter_map(|since| since.checked_add(patience));
        trials.chain(judge.ejector.poll_timeout()).chain(judge.sweep_at).min()
    }

    fn rule(&mut self, Decision { serial, action }: Decision, now: Instant) {
        let (Some(judge), Some(member)) = (&mut self.judge, self.members.get(&serial)) else {
            return;
        };
        let (standing, why, ramp) = match action {
            Action::Eject { until, why } => {
                let time = until.saturating_duration_since(now);
                (Standing::Ejected, format!("ejected for {time:.1?}: {why}").into(), None)
            }
            Action::Trial => (Standing::OnTrial, "on trial".into(), None),
            Action::Return => {
                (Standing::Good, "trial passed".into(), judge.ejector.rules().return_ramp())
            }
        };
        judge.trials.remove(&serial);
        let id = member.seen.id.clone();
        self.rulings.insert(serial, Ruling { id, standing, why, ramp });
    }

    pub(super) fn export_ejections(&self, now: Instant) -> Vec<(String, SavedEjection)> {
        let all = self.judge.iter().flat_map(|judge| judge.ejector.export(now));
        let named = all.filter_map(|(serial, saved)| {
            Some((self.members.get(&serial)?.seen.id.to_string(), saved))
        });
        named.collect()
    }

    pub(super) fn restore_ejections(&mut self, saved: &[(String, SavedEjection)], now: Instant) {
        self.recount(now);
        let Some(judge) = &mut self.judge else { return };
        let serial_of: HashMap<_, _> =
            self.members.iter().map(|(serial, it)| (it.seen.id.as_str(), *serial)).collect();
        let restore = |(id, saved): &(String, SavedEjection)| {
            judge.ejector.import(now, *serial_of.get(id.as_str())?, *saved)
        };
        let decisions: Vec<_> = saved.iter().filter_map(restore).collect();
        decisions.into_iter().for_each(|decision| self.rule(decision, now));
    }

    /// Tells the set, where there is something to tell.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.has_news() && self.quiet_until.is_none_or(|until| until <= now) {
            let words: Vec<_> = self.words.values().cloned().collect();
            let rulings: Vec<_> = self.rulings.values().cloned().collect();
            match self.service.apply(&words, &rulings) {
                Ok(()) => {
                    self.words.clear();
                    self.rulings.clear();
                    self.quiet_until = now.checked_add(self.pause());
                    // What came up begins its slow start.
                    self.tick_at = Some(now);
                }
                Err(error) => self.refused(&error, now),
            }
        }
        if self.tick_at.is_some_and(|at| at <= now) {
            match self.service.tick(now) {
                Ok(next) => self.tick_at = next,
                Err(error) => {
                    self.tick_at = now.checked_add(RETRY);
                    self.refused(&error, now);
                }
            }
        }
    }

    /// When to [tell](Self::settle) what could not be told yet.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| self.has_news())
    }

    fn has_news(&self) -> bool {
        !(self.words.is_empty() && self.rulings.is_empty())
    }

    /// How long a set is left alone once it was told something: a publication costs time in
    /// proportion to it, and when thousands fail within a second they need not have one each.
    fn pause(&self) -> Duration {
        let members = self.members.len() as u64;
        if members < 1000 { Duration::ZERO } else { Duration::from_micros(members) }
    }

    fn refused(&mut self, error: &dyn std::error::Error, now: Instant) {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        self.service.tell(EventKind::Refused { error: format!("{error}{source}").into() });
        self.quiet_until = now.checked_add(RETRY);
    }
}

impl Judge {
    fn decide(&mut self, service: &dyn Service, now: Instant) -> Vec<Decision> {
        let mut decisions = self.ejector.handle_timeout(now);
        for (serial, runs, trial) in service.heard() {
            let decision = match trial {
                Trial::None => {
                    let accusation =
                        Accusation { consecutive: runs.failures, connect: runs.connects };
                    self.ejector.accuse(now, serial, accusation)
                }
                Trial::Passed | Trial::Failed => {
                    self.ejector.trial_ended(now, serial, trial == Trial::Passed)
                }
                Trial::Taken => {
                    self.trials.entry(serial).or_insert(now);
                    None
                }
                // Given up: the next one may have it.
                Trial::Open => {
                    self.trials.remove(&serial);
                    None
                }
            };
            decisions.extend(decision);
        }
        let patience = self.ejector.rules().patience();
        let passed = self.trials.extract_if(|_, since| *since + patience <= now);
        let passed: Vec<_> = passed.map(|(serial, _)| serial).collect();
        let passed = passed.into_iter().filter_map(|it| self.ejector.trial_ended(now, it, true));
        decisions.extend(passed);
        if self.sweep_at.is_none_or(|at| at <= now) {
            self.sweep_at = now.checked_add(self.ejector.rules().interval());
            decisions.extend(self.ejector.sweep(now, &service.samples(now)));
        }
        decisions
    }
}
