//! The workloads: what clients do, and what is counted.
//!
//! Each workload is a file: its description, the side of the clients, which runs in a process of its
//! own, and the side of the backends if it is special.

pub(crate) mod balance;
pub(crate) mod bulk;
pub(crate) mod coalesced;
mod connection;
mod echo;
pub(crate) mod idle;
mod keepalive;
pub(crate) mod order;
pub(crate) mod spec;
mod start;

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use self::order::{Order, clock};
use self::spec::{Id, Workload};
use self::start::start_load;
use crate::cell::Cell;
use crate::process::Child;
use crate::running::{Running, Stage};

/// All workloads but [`balance`], which does not compare subjects.
pub(crate) const ALL: [Workload; 9] = [
    keepalive::WORKLOAD,
    connection::WORKLOAD,
    bulk::DOWN_1,
    bulk::DOWN_8,
    bulk::UP_1,
    idle::WORKLOAD,
    echo::FLOWS_64,
    echo::FLOWS_4,
    coalesced::WORKLOAD,
];

/// Runs the load of an order, and prints `done` and the counts.
pub(crate) async fn load(order: &Order) -> Result<()> {
    let start = clock();
    let mut tally = match order.workload {
        Id::W1 => keepalive::load(order).await,
        Id::W2 | Id::B => connection::load(order).await,
        Id::W3a | Id::W3b | Id::W3c => bulk::load(order).await,
        Id::W4 => idle::load(order).await,
        Id::W5a | Id::W5b => echo::load(order).await,
        Id::W5c => coalesced::load(order).await,
    }?;
    let seconds = clock().saturating_duration_since(start).as_secs_f64();
    tally.micros.sort_unstable();
    let (p50, p99) = (tally.quantile(0.5), tally.quantile(0.99));
    println!("done {} {} {seconds} {p50} {p99}", tally.units, tally.lost);
    Ok(())
}

/// Measures the processor time of a subject under a load.
///
/// Both the time and the count span the whole load, the start and the end of its connections included.
pub(crate) async fn measure(
    stage: &Stage,
    workload: &Workload,
    running: &Running,
    time: Duration,
    is_quick: bool,
) -> Result<Cell> {
    let cpu = || running.child.as_ref().map(Child::cpu_nanos).transpose();
    let before = cpu()?;
    let mut load = start_load(stage, running, workload.id, |order| {
        order.millis = time.as_millis() as u64;
        order.is_quick = is_quick;
    })?;
    let line = load.expect("done", time + Duration::from_secs(20)).await?;
    load.finish(Duration::from_secs(5)).await?;
    // The subject may still have ends of connections to pass on.
    sleep(Duration::from_millis(20)).await;
    let nanos = before.zip(cpu()?).map(|(before, after)| after - before);
    let fields: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
    let Ok(&[units, lost, seconds, p50, p99]) = fields.as_deref() else {
        anyhow::bail!("the load printed {line:?}");
    };
    ensure!(units > 0.0, "no unit of work was completed");
    Ok(Cell {
        cost: nanos.map(|nanos| nanos as f64 / units / workload.unit.nanos),
        rate: units / seconds * workload.unit.rate_scale,
        p50,
        p99,
        lost: lost / (units + lost),
    })
}
