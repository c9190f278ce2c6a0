//! One server compared with two to four behind a balancer, under a rising load.

use std::path::Path;

use indicatif::ProgressBar;

use crate::balancer_spec::Product;
use crate::cluster::{Cluster, ServerSpec};
use crate::measure::Step;
use crate::plan::{Plan, SERVER};
use crate::process::Error;

pub(crate) fn run(plan: &Plan, folder: &Path, bar: &ProgressBar) -> Result<Vec<Step>, Error> {
    let mut steps = Vec::new();
    for (product, servers) in plan.clusters.iter().copied() {
        let server_spec = ServerSpec { queue: Some(SERVER), weight: 1, max_connections: None };
        let scheduler = product.map(|product| (product, product.round_robin()));
        let cluster = Cluster::start(
            plan.is_in_namespaces,
            folder,
            &vec![server_spec; servers as usize],
            scheduler,
        )?;
        for load in plan.loads {
            let offered = load * SERVER.capacity();
            let name = product.map_or("alone", Product::name);
            bar.set_message(format!("{name}: {servers} servers, {offered:.0} requests a second"));
            steps.push(cluster.load(offered, (plan.warm_up, plan.step))?);
            bar.inc(1);
        }
    }
    Ok(steps)
}

/// Returns the throughput at which a cluster saturates: the mean over the steps whose load is far above
/// its capacity. `None` without such a step.
pub(crate) fn knee(steps: &[Step], product: Option<Product>, servers: u32) -> Option<f64> {
    let capacity = SERVER.capacity() * f64::from(servers);
    let saturated = steps.iter().filter(|step| {
        (step.product, step.servers) == (product, servers) && step.offered >= 1.14 * capacity
    });
    let answered: Vec<_> = saturated.map(|step| step.stats.answered).collect();
    (!answered.is_empty()).then(|| answered.iter().sum::<f64>() / answered.len() as f64)
}
