//! The four measures: throughput, request loss, CPU utilization, response time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balancer::Whose;
use crate::process::Error;
use crate::server::BODY;

/// What became of a request.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Fate {
    Answered,
    /// Nobody took the connection.
    Refused,
    /// The connection broke.
    Reset,
    /// No answer while the client waited.
    TimedOut,
    /// An error for an answer.
    Wrong,
}

/// A request, by when it was to be sent.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Asked {
    pub(crate) at_us: u64,
    /// How much later it was sent.
    pub(crate) late_us: u64,
    pub(crate) took_us: u64,
    pub(crate) fate: Fate,
    pub(crate) server: Option<u8>,
}

impl Asked {
    pub(crate) fn at(&self) -> Duration {
        Duration::from_micros(self.at_us)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.fate != Fate::Answered
    }
}

/// What the clients wrote down, in the order of their requests.
pub(crate) fn read(path: &Path) -> Result<Vec<Asked>, Error> {
    let mut reader = csv::Reader::from_path(path)?;
    let mut asked = reader.deserialize().collect::<Result<Vec<Asked>, _>>()?;
    asked.sort_by_key(|it| it.at_us);
    Ok(asked)
}

/// What clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) asked: u64,
    /// In a second.
    pub(crate) answered: f64,
    pub(crate) megabytes: f64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) timed_out: u64,
    pub(crate) wrong: u64,
    /// The part of all that was lost.
    pub(crate) loss: f64,
    /// In milliseconds, of those that were answered.
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// How late the clients themselves were: the 99th percentile.
    pub(crate) late_ms: f64,
    pub(crate) by_server: BTreeMap<u8, u64>,
}

impl Seen {
    /// Of requests that were to be sent within this time.
    pub(crate) fn new(asked: &[Asked], within: Duration) -> Self {
        let count = |fate| asked.iter().filter(|it| it.fate == fate).count() as u64;
        let answered: Vec<_> = asked.iter().filter(|it| !it.is_lost()).collect();
        let rate = answered.len() as f64 / within.as_secs_f64();
        let took = sorted(answered.iter().map(|it| it.took_us));
        let late = sorted(asked.iter().map(|it| it.late_us));
        let mut by_server = BTreeMap::new();
        for server in answered.iter().filter_map(|it| it.server) {
            *by_server.entry(server).or_default() += 1;
        }
        Self {
            asked: asked.len() as u64,
            answered: rate,
            megabytes: rate * BODY as f64 / 1e6,
            refused: count(Fate::Refused),
            reset: count(Fate::Reset),
            timed_out: count(Fate::TimedOut),
            wrong: count(Fate::Wrong),
            loss: (asked.len() - answered.len()) as f64 / asked.len().max(1) as f64,
            mean_ms: took.iter().sum::<u64>() as f64 / 1e3 / took.len().max(1) as f64,
            p50_ms: at(&took, 0.5),
            p90_ms: at(&took, 0.9),
            p99_ms: at(&took, 0.99),
            p999_ms: at(&took, 0.999),
            late_ms: at(&late, 0.99),
            by_server,
        }
    }
}

fn sorted(times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// The time that this part of them took at the most, in milliseconds; the nearest rank.
fn at(sorted: &[u64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |micros| *micros as f64 / 1e3)
}

/// What processes had of the machine, in processors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    /// What balances; nothing where there is none.
    pub(crate) director: f64,
    /// One real server, in the mean.
    pub(crate) server: f64,
    pub(crate) clients: f64,
    /// The part of all its processors' time in which they were not idle: the kernel's own work is
    /// among it, and what the host took away.
    pub(crate) machine: f64,
    pub(crate) busiest: Busiest,
}

/// How much of its time the busiest thread of each works.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busiest {
    pub(crate) director: f64,
    pub(crate) server: f64,
    pub(crate) clients: f64,
}

/// What a load came to.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Who balances; nobody before one server alone.
    pub(crate) whose: Option<Whose>,
    pub(crate) servers: u32,
    /// Requests in a second.
    pub(crate) offered: f64,
    pub(crate) seen: Seen,
    pub(crate) cpu: Cpu,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_adds_up() {
        let asked =
            |fate, took_us| Asked { at_us: 0, late_us: 1000, took_us, fate, server: Some(1) };
        let mut all: Vec<_> = (1..=98).map(|it| asked(Fate::Answered, it * 1000)).collect();
        all.push(asked(Fate::Reset, 1));
        all.push(asked(Fate::TimedOut, 1));
        let seen = Seen::new(&all, Duration::from_secs(2));
        assert_eq!((seen.asked, seen.reset, seen.timed_out, seen.refused), (100, 1, 1, 0));
        assert_eq!((seen.answered, seen.loss), (49.0, 0.02));
        assert_eq!((seen.p50_ms, seen.p90_ms, seen.p999_ms), (49.0, 89.0, 98.0));
        assert_eq!((seen.late_ms, seen.by_server[&1]), (1.0, 98));
        assert!(Seen::new(&[], Duration::from_secs(1)).p50_ms.is_nan());
    }
}
