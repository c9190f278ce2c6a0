//! One server against two, three and four behind a director, under a load that rises.

use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer::Whose;
use crate::cluster::{Cluster, Kind};
use crate::measure::{Cpu, Seen};
use crate::plan::{Plan, SERVER};
use crate::process::Error;

/// A step.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Who balances; nobody before one server alone.
    pub(crate) whose: Option<Whose>,
    pub(crate) servers: u32,
    /// Requests in a second.
    pub(crate) offered: f64,
    pub(crate) seen: Seen,
    pub(crate) cpu: Cpu,
}

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Point>, Error> {
    let mut points = Vec::new();
    for (whose, servers) in plan.clusters() {
        let kind = Kind { queue: Some(SERVER), weight: 1, most: None };
        let rule = whose.map(|whose| (whose, whose.round_robin()));
        let cluster = Cluster::start(folder, &vec![kind; servers as usize], rule)?;
        for load in plan.loads {
            let offered = load * SERVER.capacity();
            let name = whose.map_or("alone", Whose::name);
            bar.set_message(format!("{name}: {servers} servers, {offered:.0} requests a second"));
            let (seen, cpu) = cluster.load(offered, (plan.warm, plan.step))?;
            points.push(Point { whose, servers, offered, seen, cpu });
            bar.inc(1);
        }
    }
    Ok(points)
}

/// Where the throughput of a cluster stops to rise: what it is in the mean once far more is offered
/// than it can do. `None` if that was never offered.
pub(crate) fn knee(points: &[Point], whose: Option<Whose>, servers: u32) -> Option<f64> {
    let capacity = SERVER.capacity() * f64::from(servers);
    let beyond = points
        .iter()
        .filter(|it| (it.whose, it.servers) == (whose, servers) && it.offered >= 1.14 * capacity);
    let answered: Vec<_> = beyond.map(|it| it.seen.answered).collect();
    (!answered.is_empty()).then(|| answered.iter().sum::<f64>() / answered.len() as f64)
}
