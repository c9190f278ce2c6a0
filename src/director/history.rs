//! What services did in the last minutes, for charts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::handle::DirectorShared;
use super::service::VirtualService;
use super::status::ServiceCounters;
use crate::histogram::DurationHistogram;
use crate::sync::lock;

/// From one sample to the next.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Samples that are kept: five minutes.
const MAX_SAMPLES: usize = 300;
/// Servers of a service that have a line of their own.
const MAX_SERVER_SERIES: usize = 64;

/// The last minutes of each service.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct TrafficHistory {
    interval_ms: u64,
    services: BTreeMap<String, ServiceSeries>,
}

/// A service's lines, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
struct ServiceSeries {
    /// Carried at that moment.
    active: VecDeque<u64>,
    /// In that second.
    accepted: VecDeque<u64>,
    refused: VecDeque<u64>,
    bytes_to_servers: VecDeque<u64>,
    bytes_to_clients: VecDeque<u64>,
    /// How long connecting to servers took in that second, in milliseconds.
    connect_p50_ms: VecDeque<Option<f64>>,
    connect_p99_ms: VecDeque<Option<f64>>,
    /// What each server was given.
    servers: BTreeMap<String, VecDeque<u64>>,
    #[serde(skip)]
    previous: Option<ServiceCounters>,
}

fn push_sample<T>(line: &mut VecDeque<T>, value: T) {
    if line.len() == MAX_SAMPLES {
        line.pop_front();
    }
    line.push_back(value);
}

impl TrafficHistory {
    fn record_sample(&mut self, services: &[Arc<VirtualService>]) {
        self.interval_ms = super::status::saturating_millis(SAMPLE_INTERVAL);
        self.services.retain(|name, _| services.iter().any(|it| it.name == *name));
        for service in services {
            let lines = self.services.entry(service.name.clone()).or_default();
            lines.record_sample(service.counters());
        }
    }
}

impl ServiceSeries {
    fn record_sample(&mut self, now: ServiceCounters) {
        let Some(before) = self.previous.take() else {
            self.previous = Some(now);
            return;
        };
        let done = now.totals.saturating_sub(before.totals);
        push_sample(&mut self.active, now.active);
        push_sample(&mut self.accepted, done.accepted);
        push_sample(&mut self.refused, done.refused);
        push_sample(&mut self.bytes_to_servers, done.bytes_to_servers);
        push_sample(&mut self.bytes_to_clients, done.bytes_to_clients);
        let mut connect = DurationHistogram::default();
        self.servers.retain(|name, _| now.servers.contains_key(name));
        for (name, server) in &now.servers {
            let was = before.servers.get(name);
            let known = was.map(|was| server.connect_time.delta_since(&was.connect_time));
            connect.merge(known.as_ref().unwrap_or(&server.connect_time));
            let given = server.totals.saturating_sub(was.map(|was| was.totals).unwrap_or_default());
            if self.servers.len() < MAX_SERVER_SERIES || self.servers.contains_key(name) {
                push_sample(self.servers.entry(name.clone()).or_default(), given.connections);
            }
        }
        let millis = |part| connect.quantile(part).map(|it: Duration| it.as_secs_f64() * 1e3);
        push_sample(&mut self.connect_p50_ms, millis(0.5));
        push_sample(&mut self.connect_p99_ms, millis(0.99));
        self.previous = Some(now);
    }
}

impl DirectorShared {
    pub(super) fn history(&self) -> TrafficHistory {
        lock(&self.history).clone()
    }
}

/// Takes samples, for ever.
pub(super) async fn run_sampler(inner: Arc<DirectorShared>) {
    let mut tick = interval(SAMPLE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        lock(&inner.history).record_sample(&inner.services());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::status::{ServerCounters, ServerTotals, ServiceTotals};

    #[test]
    fn samples_are_what_was_done_in_between_and_the_oldest_go() {
        let mut lines = ServiceSeries::default();
        for n in 0..=(MAX_SAMPLES as u64 + 5) {
            let mut now = ServiceCounters { active: n, ..ServiceCounters::default() };
            now.totals = ServiceTotals { accepted: n * n, ..ServiceTotals::default() };
            let totals = ServerTotals { connections: 3 * n, ..ServerTotals::default() };
            let server = ServerCounters { totals, ..ServerCounters::default() };
            now.servers.insert("a".into(), server);
            lines.record_sample(now);
        }
        assert_eq!((lines.active.len(), lines.accepted.len()), (MAX_SAMPLES, MAX_SAMPLES));
        assert_eq!(lines.active.front(), Some(&6));
        assert_eq!(lines.accepted.front(), Some(&(36 - 25)));
        assert!(lines.servers["a"].iter().all(|given| *given == 3));
    }
}
