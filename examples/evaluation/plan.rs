//! What is run, and for how long.

use std::time::Duration;

use crate::balancer::Whose;
use crate::redundancy::Fault;
use crate::theory::Queue;

/// A run of the evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How it is called.
    pub(crate) name: &'static str,
    /// What each step measures, and what goes before that.
    pub(crate) step: Duration,
    pub(crate) warm: Duration,
    /// Requests in a second, in multiples of what one server can do.
    pub(crate) loads: &'static [f64],
    /// Who balances, over how many servers.
    pub(crate) clusters: &'static [(Option<Whose>, u32)],
    /// How long each scheduler is measured, and whether all of them are.
    pub(crate) rule: Duration,
    pub(crate) all_rules: bool,
    /// Requests in a second to servers that answer at once.
    pub(crate) rates: &'static [f64],
    /// Who loses what.
    pub(crate) faults: &'static [Fault],
    pub(crate) pairs: &'static [Whose],
}

/// What one real server is like: 400 requests in a second, and 110 ms at the worst.
pub(crate) const SERVER: Queue = Queue { workers: 4, line: 40, service: Duration::from_millis(10) };
/// What of its service time is work for the processor.
pub(crate) const WORK: Duration = Duration::from_micros(250);
/// How long clients wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

const OURS: Option<Whose> = Some(Whose::Ours);
const THEIRS: Option<Whose> = Some(Whose::Theirs);

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            name: "full",
            step: Duration::from_millis(2500),
            warm: Duration::from_millis(300),
            loads: &[0.4, 0.8, 1.0, 1.3, 1.7, 2.0, 2.4, 3.0, 3.5, 4.0, 4.6, 5.2],
            clusters: &[
                (None, 1),
                (OURS, 2),
                (OURS, 3),
                (OURS, 4),
                (THEIRS, 2),
                (THEIRS, 3),
                (THEIRS, 4),
            ],
            rule: Duration::from_millis(2000),
            all_rules: true,
            rates: &[4e3, 8e3, 12e3, 16e3, 20e3, 25e3, 32e3, 40e3],
            faults: &Fault::ALL,
            pairs: &[Whose::Ours, Whose::Theirs],
        }
    }

    /// As much of it as a minute has room for.
    pub(crate) fn quick() -> Self {
        Self {
            name: "quick",
            step: Duration::from_millis(700),
            warm: Duration::from_millis(200),
            loads: &[0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
            clusters: &[(None, 1), (OURS, 2), (OURS, 4), (THEIRS, 4)],
            rule: Duration::from_millis(500),
            all_rules: false,
            rates: &[1e3, 4e3],
            faults: &[Fault::ServerKilled, Fault::DirectorKilled, Fault::DirectorStopped],
            pairs: &[Whose::Ours],
        }
    }

    /// Those whose programs are here.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = (Option<Whose>, u32)> {
        let is_there =
            |(whose, _): &(Option<Whose>, u32)| whose.is_none_or(|it| it.is_there(false));
        self.clusters.iter().copied().filter(is_there)
    }

    /// The rules of each whose programs are here.
    pub(crate) fn rules(&self) -> Vec<(Whose, String)> {
        let few = ["wrr", "wlc", "p2c", "maglev"];
        let names = lvs::scheduler::SchedulerRegistry::default();
        let alone = names.names().filter(|name| lvs::scheduler::parse(name).is_ok());
        let ours = alone.chain(["bounded(maglev)"]).map(|rule| (Whose::Ours, rule.to_owned()));
        let theirs = ["roundrobin", "static-rr", "leastconn", "random(2)", "first", "source"];
        let theirs = theirs.map(|rule| (Whose::Theirs, rule.to_owned()));
        let wanted = |(whose, rule): &(Whose, String)| {
            whose.is_there(false) && (self.all_rules || few.contains(&&**rule))
        };
        ours.chain(theirs).filter(wanted).collect()
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = Whose> {
        self.pairs.iter().copied().filter(|it| it.is_there(true))
    }

    /// How many steps there are.
    pub(crate) fn steps(&self) -> u64 {
        let loads = self.clusters().count() * self.loads.len();
        let rates = self.ceilings().count() * self.rates.len();
        (loads + self.rules().len() + rates + self.pairs().count() * self.faults.len()) as u64
    }

    /// Whose ceiling is looked for; `None` is that of a server alone.
    pub(crate) fn ceilings(&self) -> impl Iterator<Item = Option<Whose>> {
        [None, OURS, THEIRS].into_iter().filter(|whose| whose.is_none_or(|it| it.is_there(false)))
    }
}
