//! Traffic of the last five minutes, sampled each second, for the charts of the status page.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::registry::ServiceRegistry;
use super::service::VirtualService;
use super::state_ages::StateAges;
use super::time::{saturating_millis, tokio_now};
use crate::histogram::DurationHistogram;
use crate::metrics::ServiceCounters;
use crate::sync::{Mutex, lock};

/// Time from one sample to the next.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples that are kept per series: five minutes.
const MAX_SAMPLES: usize = 300;
/// Servers of a service that have a series of their own.
const MAX_SERVER_SERIES: usize = 64;
/// Samples of which the current rates are the mean.
const RATE_SAMPLES: usize = 5;

/// The samples of all services.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct TrafficHistory {
    interval_ms: u64,
    services: BTreeMap<String, ServiceSeries>,
}

/// The series of one service, each with the oldest sample first.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ServiceSeries {
    /// Connections or flows at the time of the sample.
    active: VecDeque<u64>,
    /// Connections or flows accepted since the sample before.
    accepted: VecDeque<u64>,
    /// Absent where nothing counts them.
    refused: VecDeque<Option<u64>>,
    bytes_to_servers: VecDeque<u64>,
    bytes_to_clients: VecDeque<Option<u64>>,
    /// Quantiles of the connect time since the sample before, in milliseconds.
    connect_p50_ms: VecDeque<Option<f64>>,
    connect_p99_ms: VecDeque<Option<f64>>,
    /// Connections or flows that each server got since the sample before.
    servers: BTreeMap<String, VecDeque<u64>>,
    #[serde(skip)]
    previous: Option<ServiceCounters>,
    #[serde(skip)]
    pub(super) ages: StateAges,
}

/// What a service carries per second at this moment: the mean of the last samples.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ServiceRates {
    /// Connections or flows accepted per second.
    accepted: u64,
    refused: Option<u64>,
    bytes_to_servers: u64,
    bytes_to_clients: Option<u64>,
}

fn push_sample<T>(series: &mut VecDeque<T>, value: T) {
    if series.len() == MAX_SAMPLES {
        series.pop_front();
    }
    series.push_back(value);
}

/// Returns the mean of the last samples, the newest first; `None` if none of them is known.
fn mean(newest_first: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let known: Vec<_> = newest_first.take(RATE_SAMPLES).flatten().collect();
    known.iter().sum::<u64>().checked_div(known.len() as u64)
}

impl TrafficHistory {
    fn record_sample(&mut self, services: &[Arc<VirtualService>], now: Instant) {
        self.interval_ms = saturating_millis(SAMPLE_INTERVAL);
        self.services.retain(|name, _| services.iter().any(|service| service.name == *name));
        for service in services {
            let series = self.services.entry(service.name.clone()).or_default();
            series.record_sample(service.counters());
            let snapshot = service.balancer.snapshot();
            series.ages.observe(service.state(&snapshot), &snapshot, now);
        }
    }
}

impl ServiceSeries {
    /// Returns what the service carries per second at this moment.
    pub(super) fn rates(&self) -> ServiceRates {
        let mean_known = |series: &VecDeque<Option<u64>>| mean(series.iter().rev().copied());
        let mean_all = |series: &VecDeque<u64>| mean(series.iter().rev().copied().map(Some));
        ServiceRates {
            accepted: mean_all(&self.accepted).unwrap_or(0),
            refused: mean_known(&self.refused),
            bytes_to_servers: mean_all(&self.bytes_to_servers).unwrap_or(0),
            bytes_to_clients: mean_known(&self.bytes_to_clients),
        }
    }

    fn record_sample(&mut self, now: ServiceCounters) {
        let Some(previous) = self.previous.take() else {
            self.previous = Some(now);
            return;
        };
        let since = now.totals.saturating_sub(previous.totals);
        push_sample(&mut self.active, now.active);
        push_sample(&mut self.accepted, since.accepted);
        push_sample(&mut self.refused, since.refused);
        push_sample(&mut self.bytes_to_servers, since.bytes_to_servers);
        push_sample(&mut self.bytes_to_clients, since.bytes_to_clients);
        let mut connect = DurationHistogram::default();
        self.servers.retain(|name, _| now.servers.contains_key(name));
        for (name, server) in &now.servers {
            let before = previous.servers.get(name);
            let delta = before.map(|before| server.connect_time.delta_since(&before.connect_time));
            connect.merge(delta.as_ref().unwrap_or(&server.connect_time));
            let totals_before = before.map(|before| before.totals).unwrap_or_default();
            let totals = server.totals.saturating_sub(totals_before);
            if self.servers.len() < MAX_SERVER_SERIES || self.servers.contains_key(name) {
                push_sample(self.servers.entry(name.clone()).or_default(), totals.connections);
            }
        }
        let millis =
            |quantile| connect.quantile(quantile).map(|time: Duration| time.as_secs_f64() * 1e3);
        push_sample(&mut self.connect_p50_ms, millis(0.5));
        push_sample(&mut self.connect_p99_ms, millis(0.99));
        self.previous = Some(now);
    }
}

/// The history as the admin API reads it, and the sampler writes it.
#[derive(Clone, Debug, Default)]
pub(super) struct HistoryReader(Arc<Mutex<TrafficHistory>>);

impl HistoryReader {
    pub(super) fn snapshot(&self) -> TrafficHistory {
        lock(&self.0).clone()
    }

    /// Reads the series of one service, which are empty before the first sample. The sampler waits
    /// meanwhile.
    pub(super) fn read_series<R>(
        &self,
        service: &str,
        read: impl FnOnce(&ServiceSeries) -> R,
    ) -> R {
        match lock(&self.0).services.get(service) {
            Some(series) => read(series),
            None => read(&ServiceSeries::default()),
        }
    }
}

/// Takes a sample of all services each second. It never returns.
pub(super) async fn run_sampler(registry: ServiceRegistry, history: HistoryReader) {
    let mut tick = interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        lock(&history.0).record_sample(&registry.services(), tokio_now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ServerCounters, ServerTotals, ServiceTotals};

    #[test]
    fn samples_hold_differences_and_the_oldest_are_dropped() {
        let mut series = ServiceSeries::default();
        for n in 0..=(MAX_SAMPLES as u64 + 5) {
            let mut now = ServiceCounters { active: n, ..ServiceCounters::default() };
            now.totals = ServiceTotals { accepted: n * n, ..ServiceTotals::default() };
            let totals = ServerTotals { connections: 3 * n, ..ServerTotals::default() };
            let server = ServerCounters { totals, ..ServerCounters::default() };
            now.servers.insert("a".into(), server);
            series.record_sample(now);
        }
        assert_eq!((series.active.len(), series.accepted.len()), (MAX_SAMPLES, MAX_SAMPLES));
        assert_eq!(series.active.front(), Some(&6));
        assert_eq!(series.accepted.front(), Some(&(36 - 25)));
        // The last five differences are of 301 to 305: 2 * n - 1.
        assert_eq!(series.rates().accepted, 605);
        assert!(series.servers["a"].iter().all(|connections| *connections == 3));
    }
}
