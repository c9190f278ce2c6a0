//! Each scheduler with servers of unequal capacity.

use std::collections::BTreeMap;
use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer_spec::Product;
use crate::cluster::{Cluster, ServerSpec};
use crate::measure::{Cpu, RequestStats};
use crate::plan::{Plan, SERVER};
use crate::process::Error;
use crate::theory::Queue;

/// The workers of each server: 16 in all.
const WORKERS: [u32; 4] = [8, 4, 2, 2];
/// The load, as a fraction of the capacity of all servers.
pub(crate) const LOAD: f64 = 0.8;

/// The measurement of a scheduler.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerResult {
    pub(crate) product: Product,
    pub(crate) scheduler: String,
    pub(crate) stats: RequestStats,
    pub(crate) cpu: Cpu,
}

impl SchedulerResult {
    /// Returns the fraction of the answers that each server gave.
    pub(crate) fn shares(&self) -> [f64; WORKERS.len()] {
        let total: u64 = self.stats.by_server.values().sum();
        let count = |number| self.stats.by_server.get(&number).copied().unwrap_or(0);
        [1, 2, 3, 4].map(|number| count(number) as f64 / total.max(1) as f64)
    }
}

/// Returns the shares by capacity.
pub(crate) fn fair() -> [f64; WORKERS.len()] {
    let total: u32 = WORKERS.iter().sum();
    WORKERS.map(|workers| f64::from(workers) / f64::from(total))
}

/// Returns the offered requests a second.
pub(crate) fn offered() -> f64 {
    WORKERS.iter().map(|workers| queue(*workers).capacity()).sum::<f64>() * LOAD
}

fn queue(workers: u32) -> Queue {
    Queue { workers, backlog: 10 * workers, service: SERVER.service }
}

/// Returns what a reader must know about a scheduler's row in the table.
pub(crate) fn remark(scheduler: &str) -> &'static str {
    let remarks = BTreeMap::from([
        ("dh", "hashes the virtual address; this cluster has one"),
        ("lblc", "hashes the virtual address; this cluster has one"),
        ("lblcr", "hashes the virtual address; this cluster has one"),
        ("fo", "uses one server until it fails"),
        ("ovf", "uses one server until it is full"),
        ("first", "uses the first server until it is full"),
        ("rr", "ignores weights"),
        ("lc", "ignores weights"),
        ("sh", "hashes the client address"),
        ("mh", "hashes the client address"),
        ("ring", "hashes the client address"),
        ("maglev", "hashes the client address"),
        ("rendezvous", "hashes the client address"),
        ("bounded(maglev)", "hashes the client address; an overloaded server is skipped"),
        ("source", "hashes the client address"),
    ]);
    remarks.get(scheduler).copied().unwrap_or_default()
}

pub(crate) fn run(
    plan: &Plan,
    folder: &Path,
    bar: &ProgressBar,
) -> Result<Vec<SchedulerResult>, Error> {
    let mut results = Vec::new();
    for (product, scheduler) in plan.schedulers.clone() {
        bar.set_message(format!("{}: {scheduler}", product.name()));
        // These schedulers fill one server before the next, and need to know when it is full.
        let fills = matches!(&*scheduler, "first" | "ovf");
        let server_specs = WORKERS.map(|workers| ServerSpec {
            queue: Some(queue(workers)),
            weight: workers,
            max_connections: fills.then_some(workers),
        });
        let cluster = Cluster::start(
            plan.is_in_namespaces,
            folder,
            &server_specs,
            Some((product, &scheduler)),
        )?;
        let step = cluster.load(offered(), (plan.warm_up, plan.scheduler_step))?;
        results.push(SchedulerResult { product, scheduler, stats: step.stats, cpu: step.cpu });
        bar.inc(1);
    }
    Ok(results)
}
