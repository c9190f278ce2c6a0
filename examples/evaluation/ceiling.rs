//! What is the limit once the servers are not: they answer at once, and more and more is asked.

use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer::Whose;
use crate::cluster::{Cluster, Kind};
use crate::measure::Step;
use crate::plan::Plan;
use crate::process::Error;

/// How often a rate that does not hold is tried: others use the machine too.
const TRIES: usize = 3;
/// What is used less than this is no limit.
const BUSY: f64 = 0.8;

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for whose in plan.ceilings() {
        let kind = Kind { queue: None, weight: 1, most: None };
        let rule = whose.map(|whose| (whose, whose.round_robin()));
        let servers = if whose.is_some() { 2 } else { 1 };
        let cluster = Cluster::start(folder, &vec![kind; servers], rule)?;
        for (number, &offered) in plan.rates.iter().enumerate() {
            let name = whose.map_or("alone", Whose::name);
            bar.set_message(format!("{name}: servers without work, {offered} requests a second"));
            let mut step = cluster.load(offered, (plan.warm, plan.rule))?;
            for _ in 1..TRIES {
                if holds(&step) {
                    break;
                }
                step = cluster.load(offered, (plan.warm, plan.rule))?;
            }
            let holds = holds(&step);
            steps.push(step);
            bar.inc(1);
            if !holds {
                // More would say nothing new.
                bar.inc((plan.rates.len() - number - 1) as u64);
                break;
            }
        }
    }
    Ok(steps)
}

/// Tells whether all that was asked for was answered, and no client was late.
pub(crate) fn holds(step: &Step) -> bool {
    step.seen.loss < 0.01 && step.seen.late_ms < 20.0
}

/// What could do no more: what is busiest.
pub(crate) fn limit(step: &Step) -> String {
    let cpu = &step.cpu;
    let parts = [
        ("the machine, whose processors are", cpu.machine),
        ("the clients, whose thread is", cpu.busiest.clients),
        ("the servers, whose thread is", cpu.busiest.server),
        ("the director, whose busiest thread is", cpu.busiest.director),
    ];
    let busiest = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let (name, part) = busiest.filter(|it| it.1 >= BUSY).unwrap_or(("not known: nothing is", BUSY));
    format!("{name} {:.0} % busy", 100.0 * part)
}

/// The last rate that one held, if it held any.
pub(crate) fn held(steps: &[Step], whose: Option<Whose>) -> Option<&Step> {
    steps.iter().rfind(|step| step.whose == whose && holds(step))
}

/// The first rate that was too much, if there was one.
pub(crate) fn too_much(steps: &[Step], whose: Option<Whose>) -> Option<&Step> {
    steps.iter().find(|step| step.whose == whose && !holds(step))
}
