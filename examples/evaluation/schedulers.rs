//! Each scheduler with servers that are not equal.

use std::collections::BTreeMap;
use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer::Whose;
use crate::cluster::{Cluster, Kind};
use crate::measure::{Cpu, Seen};
use crate::plan::{Plan, SERVER};
use crate::process::Error;
use crate::theory::Queue;

/// What the servers are worth, in servers with one worker: 16 in all.
const WORKERS: [u32; 4] = [8, 4, 2, 2];
/// What is asked of them, in parts of what all can do.
pub(crate) const LOAD: f64 = 0.8;

/// How a rule did.
#[derive(Clone, Debug)]
pub(crate) struct Ruled {
    pub(crate) whose: Whose,
    pub(crate) rule: String,
    pub(crate) seen: Seen,
    pub(crate) cpu: Cpu,
}

impl Ruled {
    /// The part of the answers that each server gave.
    pub(crate) fn shares(&self) -> [f64; WORKERS.len()] {
        let all: u64 = self.seen.by_server.values().sum();
        let of = |number| self.seen.by_server.get(&number).copied().unwrap_or(0);
        [1, 2, 3, 4].map(|number| of(number) as f64 / all.max(1) as f64)
    }
}

/// The shares that would be fair.
pub(crate) fn fair() -> [f64; WORKERS.len()] {
    let all: u32 = WORKERS.iter().sum();
    WORKERS.map(|workers| f64::from(workers) / f64::from(all))
}

/// What was asked for in a second.
pub(crate) fn offered() -> f64 {
    WORKERS.iter().map(|workers| kind(*workers).capacity()).sum::<f64>() * LOAD
}

fn kind(workers: u32) -> Queue {
    Queue { workers, line: 10 * workers, service: SERVER.service }
}

/// What is to be known about a rule to read its line.
pub(crate) fn remark(rule: &str) -> &'static str {
    let remarks = BTreeMap::from([
        ("dh", "by the virtual address, of which there is one here"),
        ("lblc", "by the virtual address, of which there is one here"),
        ("lblcr", "by the virtual address, of which there is one here"),
        ("fo", "one server, until it fails"),
        ("ovf", "one server, until it is full"),
        ("first", "the first server, until it is full"),
        ("rr", "takes no account of weights"),
        ("lc", "takes no account of weights"),
        ("sh", "by the client's address"),
        ("mh", "by the client's address"),
        ("ring", "by the client's address"),
        ("maglev", "by the client's address"),
        ("rendezvous", "by the client's address"),
        ("bounded(maglev)", "by the client's address, unless that server is above its share"),
        ("source", "by the client's address"),
    ]);
    remarks.get(rule).copied().unwrap_or_default()
}

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Ruled>, Error> {
    let mut all = Vec::new();
    for (whose, rule) in plan.rules() {
        bar.set_message(format!("{}: {rule}", whose.name()));
        // These fill one server before they look at the next: they have to know when it is full.
        let fills = matches!(&*rule, "first" | "ovf");
        let kinds = WORKERS.map(|workers| Kind {
            queue: Some(kind(workers)),
            weight: workers,
            most: fills.then_some(workers),
        });
        let cluster = Cluster::start(folder, &kinds, Some((whose, &rule)))?;
        let step = cluster.load(offered(), (plan.warm, plan.rule))?;
        all.push(Ruled { whose, rule, seen: step.seen, cpu: step.cpu });
        bar.inc(1);
    }
    Ok(all)
}
