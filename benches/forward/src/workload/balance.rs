//! B: how evenly two workers share new connections.
//!
//! Each worker has a listener of its own on one port, and the kernel chooses by a hash of the
//! addresses: n connections are distributed like n throws of a coin. Over 10 000 connections three standard
//! deviations are 3 % of a worker's part; a difference of a tenth is not chance.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::spec::Id;
use super::start::start_load;
use crate::running::{Running, Stage, lvs};
use crate::subject::Subject;
use crate::traffic::Traffic;

/// The connections that each worker accepted.
#[derive(Clone, Debug)]
pub(crate) struct Balance {
    pub(crate) accepted: Vec<u64>,
}

/// Below this number of connections the balance is not judged: chance alone would miss the goal too
/// often.
const MIN_CONNECTIONS: u64 = 4_000;

impl Balance {
    /// Returns how many more connections the busiest worker accepted than the least busy, as a part of
    /// the latter's.
    pub(crate) fn difference(&self) -> Option<f64> {
        let most = *self.accepted.iter().max()?;
        let least = *self.accepted.iter().min()?;
        let total: u64 = self.accepted.iter().sum();
        (total >= MIN_CONNECTIONS && least > 0).then(|| (most - least) as f64 / least as f64)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accepted: Vec<_> = self.accepted.iter().map(u64::to_string).collect();
        write!(f, "connections accepted by each of two workers: {}", accepted.join(" and "))?;
        match self.difference() {
            Some(part) => write!(f, " (differ by {:.1} %)", part * 100.0),
            None => write!(f, " (too few to judge)"),
        }
    }
}

/// Makes connections as [W2](super::connection) does, through two workers without pinning, and returns
/// how many each accepted.
pub(crate) async fn measure(stage: &Stage, time: Duration, is_quick: bool) -> Result<Balance> {
    let (address, mut child) = lvs(stage, None, Traffic::Tcp, None, 2).await?;
    let running = Running { subject: Subject::Lvs, targets: vec![address], child: None };
    let mut load = start_load(stage, &running, Id::W2, |order| {
        order.millis = time.as_millis() as u64;
        order.is_quick = is_quick;
    })?;
    load.expect("done", time + Duration::from_secs(20)).await?;
    load.finish(Duration::from_secs(5)).await?;
    child.write_line("accepted").await?;
    let line = child.expect("accepted", Duration::from_secs(5)).await?;
    let accepted: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
    let accepted = accepted.with_context(|| format!("invalid counts: {line:?}"))?;
    ensure!(accepted.len() == 2, "{} workers instead of two", accepted.len());
    child.end().await?;
    Ok(Balance { accepted })
}
