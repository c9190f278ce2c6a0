//! What services did in the last minutes, for charts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::running::Inner;
use super::service::Service;
use super::status::Measured;
use crate::histogram::Durations;
use crate::sync::lock;

/// From one sample to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Samples that are kept: five minutes.
const KEPT: usize = 300;
/// Servers of a service that have a line of their own.
const SERVERS: usize = 64;

/// The last minutes of each service.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct History {
    interval_ms: u64,
    services: BTreeMap<String, Lines>,
}

/// A service's lines, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
struct Lines {
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
    before: Option<Measured>,
}

fn push<T>(line: &mut VecDeque<T>, value: T) {
    if line.len() == KEPT {
        line.pop_front();
    }
    line.push_back(value);
}

impl History {
    fn take(&mut self, services: &[Arc<Service>]) {
        self.interval_ms = super::status::millis(EVERY);
        self.services.retain(|name, _| services.iter().any(|it| it.name == *name));
        for service in services {
            let lines = self.services.entry(service.name.clone()).or_default();
            lines.take(service.measured());
        }
    }
}

impl Lines {
    fn take(&mut self, now: Measured) {
        let Some(before) = self.before.take() else {
            self.before = Some(now);
            return;
        };
        let done = now.totals.minus(before.totals);
        push(&mut self.active, now.active);
        push(&mut self.accepted, done.accepted);
        push(&mut self.refused, done.refused);
        push(&mut self.bytes_to_servers, done.bytes_to_servers);
        push(&mut self.bytes_to_clients, done.bytes_to_clients);
        let mut connect = Durations::default();
        self.servers.retain(|name, _| now.servers.contains_key(name));
        for (name, server) in &now.servers {
            let was = before.servers.get(name);
            let known = was.map(|was| server.connect.since(&was.connect));
            connect.merge(known.as_ref().unwrap_or(&server.connect));
            let given = server.totals.minus(was.map(|was| was.totals).unwrap_or_default());
            if self.servers.len() < SERVERS || self.servers.contains_key(name) {
                push(self.servers.entry(name.clone()).or_default(), given.connections);
            }
        }
        let millis = |part| connect.quantile(part).map(|it: Duration| it.as_secs_f64() * 1e3);
        push(&mut self.connect_p50_ms, millis(0.5));
        push(&mut self.connect_p99_ms, millis(0.99));
        self.before = Some(now);
    }
}

impl Inner {
    pub(super) fn history(&self) -> History {
        lock(&self.history).clone()
    }
}

/// Takes samples, for ever.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        lock(&inner.history).take(&inner.services());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::director::status::{ServerMeasured, ServerTotals, Totals};

    #[test]
    fn samples_are_what_was_done_in_between_and_the_oldest_go() {
        let mut lines = Lines::default();
        for n in 0..=(KEPT as u64 + 5) {
            let mut now = Measured { active: n, ..Measured::default() };
            now.totals = Totals { accepted: n * n, ..Totals::default() };
            let totals = ServerTotals { connections: 3 * n, ..ServerTotals::default() };
            let server = ServerMeasured { totals, ..ServerMeasured::default() };
            now.servers.insert("a".into(), server);
            lines.take(now);
        }
        assert_eq!((lines.active.len(), lines.accepted.len()), (KEPT, KEPT));
        assert_eq!(lines.active.front(), Some(&6));
        assert_eq!(lines.accepted.front(), Some(&(36 - 25)));
        assert!(lines.servers["a"].iter().all(|given| *given == 3));
    }
}
