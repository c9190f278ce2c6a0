//! One server against two, three and four behind a director, under a load that rises.

use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer::Whose;
use crate::cluster::{Cluster, Kind};
use crate::measure::Step;
use crate::plan::{Plan, SERVER};
use crate::process::Error;

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (whose, servers) in plan.clusters() {
        let kind = Kind { queue: Some(SERVER), weight: 1, most: None };
        let rule = whose.map(|whose| (whose, whose.round_robin()));
        let cluster = Cluster::start(folder, &vec![kind; servers as usize], rule)?;
        for load in plan.loads {
            let offered = load * SERVER.capacity();
            let name = whose.map_or("alone", Whose::name);
            bar.set_message(format!("{name}: {servers} servers, {offered:.0} requests a second"));
            steps.push(cluster.load(offered, (plan.warm, plan.step))?);
            bar.inc(1);
        }
    }
    Ok(steps)
}

/// Where the throughput of a cluster stops to rise: what it is in the mean once far more is offered
/// than it can do. `None` if that was never offered.
pub(crate) fn knee(steps: &[Step], whose: Option<Whose>, servers: u32) -> Option<f64> {
    let capacity = SERVER.capacity() * f64::from(servers);
    let beyond = steps
        .iter()
        .filter(|it| (it.whose, it.servers) == (whose, servers) && it.offered >= 1.14 * capacity);
    let answered: Vec<_> = beyond.map(|it| it.seen.answered).collect();
    (!answered.is_empty()).then(|| answered.iter().sum::<f64>() / answered.len() as f64)
}
