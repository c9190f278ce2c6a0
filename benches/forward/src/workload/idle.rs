//! W4: the resident memory of an idle connection, after one request on each.
//!
//! Opens as many connections as the limit of open files allows for a forwarder that takes two
//! descriptors for each, up to 9000. Every round starts the subjects anew, since memory that they kept
//! from an earlier round would hide the cost. The kernel's memory for the sockets is not included.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, stdin};
use tokio::time::sleep;

use super::order::{Order, Tally};
use super::spec::{Id, Unit, Workload};
use super::start::start_load;
use crate::cell::Cell;
use crate::messages::{KEEP, KEPT};
use crate::running::{Running, Stage};
use crate::subject::Subject;
use crate::traffic::Traffic;

pub(crate) const WORKLOAD: Workload = Workload {
    id: Id::W4,
    title: "idle connections, after one request each",
    unit: Unit { name: "RSS bytes/connection", nanos: 1.0, rate: "connections", rate_scale: 1.0 },
    traffic: Traffic::Tcp,
    // Without subjects that splice: their pipes leave too few descriptors.
    subjects: &[
        Subject::Lvs,
        Subject::LvsBefore,
        Subject::Haproxy,
        Subject::HaproxyAgain,
        Subject::Nginx,
    ],
};

const MAX_CONNECTIONS: u64 = 9_000;
/// Descriptors of a process that are not for connections.
const OTHER_DESCRIPTORS: u64 = 200;

/// Returns how many connections to open with a limit of open files.
pub(crate) fn connections(descriptors: u64, is_quick: bool) -> u64 {
    let most = if is_quick { 500 } else { MAX_CONNECTIONS };
    (descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).clamp(1, most)
}

/// Holds connections until stdin ends; prints `held` when all requests have been answered.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut held = Vec::new();
    for i in 0..order.amount {
        let mut stream = order.connect(i as usize).await?;
        stream.write_all(KEEP).await.context("cannot send a request")?;
        let mut answer = [0; KEPT.len()];
        stream.read_exact(&mut answer).await.context("an answer is incomplete")?;
        ensure!(answer == *KEPT, "an answer differs");
        tally.units += 1;
        held.push(stream);
    }
    println!("held");
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(tally)
}

/// Measures a subject, which is started for this measurement.
pub(crate) async fn measure(stage: &Stage, subject: Subject, amount: u64) -> Result<Cell> {
    let running = Running::start(stage, subject, Traffic::Tcp).await?;
    let child = running.child.as_ref().context("the subject has no process")?;
    // The memory that a process allocates at its first connections is not counted.
    let first = start_load(stage, &running, Id::W4, |order| order.amount = 50)?;
    held(first).await?;
    sleep(Duration::from_millis(100)).await;
    let before = child.resident_bytes()?;
    let mut load = start_load(stage, &running, Id::W4, |order| order.amount = amount)?;
    load.expect("held", Duration::from_secs(60)).await?;
    sleep(Duration::from_millis(50)).await;
    let during = child.resident_bytes()?;
    finish(load).await?;
    running.end().await?;
    let bytes = during.saturating_sub(before) as f64 / amount as f64;
    Ok(Cell { cost: Some(bytes), rate: amount as f64, ..Cell::default() })
}

async fn held(mut load: crate::process::Child) -> Result<()> {
    load.expect("held", Duration::from_secs(10)).await?;
    finish(load).await
}

async fn finish(load: crate::process::Child) -> Result<()> {
    load.finish(Duration::from_secs(10)).await
}
