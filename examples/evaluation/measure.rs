//! The measurements: throughput, request loss, CPU utilization and response time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balancer_spec::Product;
use crate::process::Error;
use crate::server::BODY;

/// How a request ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum RequestResult {
    Answered,
    /// The connection was refused or the address was unreachable.
    Refused,
    /// The connection broke.
    Reset,
    /// The client's timeout passed without an answer.
    TimedOut,
    /// The answer was an error or incomplete.
    Wrong,
}

/// A request of a client.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct RequestRecord {
    /// The moment at which the request was due.
    pub(crate) at_us: u64,
    /// How much later the client sent it.
    pub(crate) late_us: u64,
    /// The response time, from the due moment.
    pub(crate) took_us: u64,
    pub(crate) fate: RequestResult,
    pub(crate) server: Option<u8>,
}

impl RequestRecord {
    pub(crate) fn at(&self) -> Duration {
        Duration::from_micros(self.at_us)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.fate != RequestResult::Answered
    }
}

/// Reads the requests that the clients recorded, sorted by their due moments.
pub(crate) fn read(path: &Path) -> Result<Vec<RequestRecord>, Error> {
    let mut reader = csv::Reader::from_path(path)?;
    let mut requests = reader.deserialize().collect::<Result<Vec<RequestRecord>, _>>()?;
    requests.sort_by_key(|request| request.at_us);
    Ok(requests)
}

/// Statistics of the requests of a step.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestStats {
    pub(crate) requests: u64,
    /// Answers a second.
    pub(crate) answered: f64,
    pub(crate) megabytes: f64,
    pub(crate) refused: u64,
    pub(crate) reset: u64,
    pub(crate) timed_out: u64,
    pub(crate) wrong: u64,
    /// The fraction of requests that were lost.
    pub(crate) loss: f64,
    /// The mean response time of answered requests, in milliseconds; quantiles below.
    pub(crate) mean_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// The 99th percentile of how late the clients sent requests.
    pub(crate) late_ms: f64,
    pub(crate) by_server: BTreeMap<u8, u64>,
}

impl RequestStats {
    /// Computes the statistics of requests that were due within a time.
    pub(crate) fn new(requests: &[RequestRecord], within: Duration) -> Self {
        let count = |fate| requests.iter().filter(|request| request.fate == fate).count() as u64;
        let answered: Vec<_> = requests.iter().filter(|request| !request.is_lost()).collect();
        let rate = answered.len() as f64 / within.as_secs_f64();
        let took = sorted(answered.iter().map(|request| request.took_us));
        let late = sorted(requests.iter().map(|request| request.late_us));
        let mut by_server = BTreeMap::new();
        for server in answered.iter().filter_map(|request| request.server) {
            *by_server.entry(server).or_default() += 1;
        }
        Self {
            requests: requests.len() as u64,
            answered: rate,
            megabytes: rate * BODY as f64 / 1e6,
            refused: count(RequestResult::Refused),
            reset: count(RequestResult::Reset),
            timed_out: count(RequestResult::TimedOut),
            wrong: count(RequestResult::Wrong),
            loss: (requests.len() - answered.len()) as f64 / requests.len().max(1) as f64,
            mean_ms: took.iter().sum::<u64>() as f64 / 1e3 / took.len().max(1) as f64,
            p50_ms: quantile(&took, 0.5),
            p90_ms: quantile(&took, 0.9),
            p99_ms: quantile(&took, 0.99),
            p999_ms: quantile(&took, 0.999),
            late_ms: quantile(&late, 0.99),
            by_server,
        }
    }
}

fn sorted(times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// Returns the quantile of sorted times, in milliseconds, by the nearest rank.
fn quantile(sorted: &[u64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |micros| *micros as f64 / 1e3)
}

/// CPU utilization in a step, in processors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu {
    /// The process of the balancer; 0 without one.
    pub(crate) director: f64,
    /// The mean over the real servers.
    pub(crate) server: f64,
    pub(crate) clients: f64,
    /// Balancer, all servers and clients together, with the kernel's threads for software interrupts. The
    /// work of the kernel for packets is in it, whichever task it interrupted.
    pub(crate) cluster: f64,
    /// The fraction of the time in which the machine's processors were not idle, with the kernel's
    /// own work and time that the hypervisor took.
    pub(crate) machine: f64,
    /// The fraction of the processors' time that other programs of the machine used, and interrupts of
    /// an idle processor, which no task is charged for.
    pub(crate) others: f64,
    pub(crate) busiest: Busiest,
}

/// The utilization of the busiest thread of each kind of process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busiest {
    pub(crate) director: f64,
    pub(crate) server: f64,
    pub(crate) clients: f64,
}

/// The measurement of a load step.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The balancer; `None` for a server without balancer.
    pub(crate) product: Option<Product>,
    pub(crate) servers: u32,
    /// Requests a second.
    pub(crate) offered: f64,
    pub(crate) stats: RequestStats,
    pub(crate) cpu: Cpu,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistics_add_up() {
        let request = |fate, took_us| RequestRecord {
            at_us: 0,
            late_us: 1000,
            took_us,
            fate,
            server: Some(1),
        };
        let mut requests: Vec<_> =
            (1..=98).map(|millis| request(RequestResult::Answered, millis * 1000)).collect();
        requests.push(request(RequestResult::Reset, 1));
        requests.push(request(RequestResult::TimedOut, 1));
        let stats = RequestStats::new(&requests, Duration::from_secs(2));
        assert_eq!((stats.requests, stats.reset, stats.timed_out, stats.refused), (100, 1, 1, 0));
        assert_eq!((stats.answered, stats.loss), (49.0, 0.02));
        assert_eq!((stats.p50_ms, stats.p90_ms, stats.p999_ms), (49.0, 89.0, 98.0));
        assert_eq!((stats.late_ms, stats.by_server[&1]), (1.0, 98));
        assert!(RequestStats::new(&[], Duration::from_secs(1)).p50_ms.is_nan());
    }
}
