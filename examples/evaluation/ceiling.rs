//! The limit of a balancer whose servers answer at once, under a rising load.

use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer_spec::Product;
use crate::cluster::{Cluster, ServerSpec};
use crate::measure::Step;
use crate::plan::Plan;
use crate::process::Error;

/// How often a rate is tried before it counts as too high: other work on the machine disturbs a step.
const MAX_ATTEMPTS: usize = 3;
/// The utilization below which a resource is not the limit.
const BUSY: f64 = 0.8;
/// The utilization by other programs of the machine above which a limit is said to be theirs too.
const OTHERS: f64 = 0.1;

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for product in plan.ceilings.iter().copied() {
        let server_spec = ServerSpec { queue: None, weight: 1, max_connections: None };
        let scheduler = product.map(|product| (product, product.round_robin()));
        let servers = if product.is_some() { 2 } else { 1 };
        let server_specs = vec![server_spec; servers];
        let cluster = Cluster::start(plan.is_in_namespaces, folder, &server_specs, scheduler)?;
        for (number, &offered) in plan.rates.iter().enumerate() {
            let name = product.map_or("alone", Product::name);
            bar.set_message(format!("{name}: servers without work, {offered} requests a second"));
            let mut step = cluster.load(offered, (plan.warm_up, plan.scheduler_step))?;
            for _ in 1..MAX_ATTEMPTS {
                if holds(&step) {
                    break;
                }
                step = cluster.load(offered, (plan.warm_up, plan.scheduler_step))?;
            }
            let holds = holds(&step);
            steps.push(step);
            bar.inc(1);
            if !holds {
                // Higher rates are skipped.
                bar.inc((plan.rates.len() - number - 1) as u64);
                break;
            }
        }
    }
    Ok(steps)
}

/// Returns whether nearly all requests were answered, and the clients sent them in time.
pub(crate) fn holds(step: &Step) -> bool {
    step.stats.loss < 0.01 && step.stats.late_ms < 20.0
}

/// Returns the busiest resource of a step.
pub(crate) fn limit(step: &Step) -> String {
    let cpu = &step.cpu;
    let parts = [
        ("all processors of the machine", cpu.machine),
        ("the thread of the clients", cpu.busiest.clients),
        ("the thread of a server", cpu.busiest.server),
        ("the busiest thread of the balancer", cpu.busiest.director),
    ];
    let busiest = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1));
    match busiest.filter(|(_, utilization)| *utilization >= BUSY) {
        Some((name, utilization)) => {
            let limit = format!("{name}, {:.0} % busy", 100.0 * utilization);
            match cpu.others {
                others if others > OTHERS => {
                    format!("{limit}; other programs use {:.0} % of the machine", 100.0 * others)
                }
                _ => limit,
            }
        }
        None => format!("unknown: nothing is {:.0} % busy", 100.0 * BUSY),
    }
}

/// Returns the step of the highest rate that held, if any did.
pub(crate) fn held(steps: &[Step], product: Option<Product>) -> Option<&Step> {
    steps.iter().rfind(|step| step.product == product && holds(step))
}

/// Returns the step of the first rate that was too high, if any was.
pub(crate) fn too_much(steps: &[Step], product: Option<Product>) -> Option<&Step> {
    steps.iter().find(|step| step.product == product && !holds(step))
}
