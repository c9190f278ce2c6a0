//! The start from which counters are counted.
//!
//! Counters never decrease, not even when an operator zeroes them: the zero is a [`CounterBaseline`]
//! that the status subtracts.

use std::collections::BTreeMap;

use crate::metrics::{ServerTotals, ServiceCounters, ServiceTotals};

/// The start from which a reader wants counters counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CountedSince {
    /// The first start: counters never decrease, as Prometheus expects.
    Start,
    /// The last time that an operator zeroed the counters.
    LastZeroed,
}

/// Counters at the time when an operator zeroed them.
#[derive(Debug, Default)]
pub(super) struct CounterBaseline {
    totals: ServiceTotals,
    refused: BTreeMap<&'static str, u64>,
    servers: BTreeMap<String, ServerTotals>,
}

impl CounterBaseline {
    pub(super) fn new(totals: ServiceTotals, counters: &ServiceCounters) -> Self {
        let servers = counters.servers.iter();
        Self {
            totals,
            refused: counters.refused.clone(),
            servers: servers.map(|(name, server)| (name.clone(), server.totals)).collect(),
        }
    }

    /// Leaves what was counted after the baseline.
    pub(super) fn subtract_from(&self, totals: &mut ServiceTotals, counters: &mut ServiceCounters) {
        *totals = totals.saturating_sub(self.totals);
        for (reason, count) in &mut counters.refused {
            *count = count.saturating_sub(self.refused.get(reason).copied().unwrap_or_default());
        }
        for (name, server) in &mut counters.servers {
            let zero = self.servers.get(name).copied().unwrap_or_default();
            server.totals = server.totals.saturating_sub(zero);
        }
    }
}
