//! What is the limit once the servers are not: they answer at once, and more and more is asked.

use std::path::Path;
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::ProgressBar;

use crate::balancer::Whose;
use crate::cluster::{Cluster, Kind};
use crate::measure::{Cpu, Seen};
use crate::plan::Plan;
use crate::process::Error;

/// A step.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Who balances; nobody before one server alone.
    pub(crate) whose: Option<Whose>,
    pub(crate) offered: f64,
    pub(crate) seen: Seen,
    pub(crate) cpu: Cpu,
}

impl Rate {
    /// Tells whether all that was asked for was answered, and no client was late.
    pub(crate) fn holds(&self) -> bool {
        self.seen.loss < 0.01 && self.seen.late_ms < 20.0
    }

    /// What could do no more.
    pub(crate) fn limit(&self) -> &'static str {
        let Cpu { director, server, clients, machine } = self.cpu;
        let cores = available_parallelism().map_or(1, usize::from) as f64;
        match () {
            () if machine > 0.9 * cores => "the machine: all its processors are busy",
            // Clients and servers are programs of one thread that does the work.
            () if clients > 0.9 => "the clients: their thread is busy",
            () if server > 0.9 => "the servers: their threads are busy",
            () if director > 0.9 * cores => "the director: its threads are busy",
            () => "none of the processes: they wait for each other",
        }
    }
}

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Rate>, Error> {
    let mut rates = Vec::new();
    for whose in plan.ceilings() {
        let kind = Kind { queue: None, weight: 1, most: None };
        let rule = whose.map(|whose| (whose, whose.round_robin()));
        let servers = if whose.is_some() { 2 } else { 1 };
        let cluster = Cluster::start(folder, &vec![kind; servers], rule)?;
        for (step, &offered) in plan.rates.iter().enumerate() {
            let name = whose.map_or("alone", Whose::name);
            bar.set_message(format!("{name}: servers without work, {offered} requests a second"));
            let time = (plan.warm, plan.rule.min(Duration::from_secs(1)));
            let (seen, cpu) = cluster.load(offered, time)?;
            let rate = Rate { whose, offered, seen, cpu };
            let holds = rate.holds();
            rates.push(rate);
            bar.inc(1);
            if !holds {
                // More would say nothing new.
                bar.inc((plan.rates.len() - step - 1) as u64);
                break;
            }
        }
    }
    Ok(rates)
}

/// The last rate that one held, if it held any.
pub(crate) fn held(rates: &[Rate], whose: Option<Whose>) -> Option<&Rate> {
    rates.iter().rfind(|rate| rate.whose == whose && rate.holds())
}

/// The first rate that was too much, if there was one.
pub(crate) fn too_much(rates: &[Rate], whose: Option<Whose>) -> Option<&Rate> {
    rates.iter().find(|rate| rate.whose == whose && !rate.holds())
}
