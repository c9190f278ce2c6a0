//! The targets of SRV records, each looked up by itself: one that does not answer delays no other.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::answer::{ResolvedAddresses, SrvRecord, SrvTarget, specs_from_targets};
use super::error::ResolveError;
use super::resolver::DnsResolver;
use crate::backend::Spec;

/// The most targets that are looked up at the same time.
const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// How long after a failed lookup the next one is due at most.
const FAILED_LOOKUP_RETRY: Duration = Duration::from_secs(5);

/// The SRV records of a service, and what is known of their targets.
#[derive(Debug)]
pub(super) struct SrvTargets {
    records: Vec<SrvRecord>,
    states: HashMap<String, TargetState>,
    lookups: JoinSet<(String, Result<ResolvedAddresses, ResolveError>)>,
    permits: Arc<Semaphore>,
    /// The error of the last lookup that failed.
    last_error: Option<ResolveError>,
}

#[derive(Debug, Default)]
struct TargetState {
    /// The addresses of the last answer.
    addresses: Vec<IpAddr>,
    ttl: Duration,
    is_looked_up: bool,
    /// Whether a lookup has ended, well or not.
    has_result: bool,
    /// Whether the last lookup had no answer.
    is_failing: bool,
}

/// The members at the targets of the records.
#[derive(Debug)]
pub(super) enum TargetReport {
    /// The first lookups of some targets go on: these are the members at the others.
    Partial(Vec<Spec<SocketAddr>>),
    /// All members that are known.
    Whole(Vec<Spec<SocketAddr>>),
}

impl SrvTargets {
    pub(super) fn new() -> Self {
        Self {
            records: Vec::new(),
            states: HashMap::new(),
            lookups: JoinSet::new(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_LOOKUPS)),
            last_error: None,
        }
    }

    /// Replaces the records, and starts a lookup of each target that is not looked up already.
    pub(super) fn look_up(
        &mut self,
        records: Vec<SrvRecord>,
        resolver: &DnsResolver,
        limit: Duration,
    ) {
        self.records = records;
        let records = &self.records;
        self.states.retain(|name, _| records.iter().any(|record| record.target == *name));
        for record in records {
            let state = self.states.entry(record.target.clone()).or_default();
            if std::mem::replace(&mut state.is_looked_up, true) {
                continue;
            }
            let (resolver, name) = (resolver.clone(), record.target.clone());
            let permits = Arc::clone(&self.permits);
            self.lookups.spawn(async move {
                // `Err` cannot happen: the semaphore is never closed.
                let _permit = permits.acquire().await;
                let found = timeout(limit, resolver.lookup_addresses(&name)).await;
                (name, found.unwrap_or(Err(ResolveError::Timeout(limit))))
            });
        }
    }

    pub(super) fn is_looking_up(&self) -> bool {
        !self.lookups.is_empty()
    }

    /// Waits for the end of a lookup, and records it with all others that have ended. Cancel safe.
    pub(super) async fn next_result(&mut self, source: &str) {
        let mut ended = self.lookups.join_next().await;
        while let Some(joined) = ended {
            // Only the shutdown of the runtime ends such a task early.
            if let Ok((target, found)) = joined {
                self.record(source, &target, found);
            }
            ended = self.lookups.try_join_next();
        }
    }

    fn record(
        &mut self,
        source: &str,
        target: &str,
        found: Result<ResolvedAddresses, ResolveError>,
    ) {
        // The records do not name the target any more.
        let Some(state) = self.states.get_mut(target) else { return };
        state.is_looked_up = false;
        let had_result = std::mem::replace(&mut state.has_result, true);
        let was_failing = std::mem::take(&mut state.is_failing);
        match found {
            Ok(ResolvedAddresses { addresses, ttl }) => {
                (state.addresses, state.ttl) = (addresses, ttl);
                if was_failing {
                    info!("discovery from {source}: SRV target {target} is resolved again");
                }
            }
            Err(error) => {
                state.ttl = FAILED_LOOKUP_RETRY;
                if error.is_negative_answer() {
                    if !had_result || was_failing || !state.addresses.is_empty() {
                        warn!(
                            "discovery from {source}: SRV target {target} has no address: {error}"
                        );
                    }
                    state.addresses.clear();
                    return;
                }
                state.is_failing = true;
                if !was_failing {
                    let kept = state.addresses.len();
                    warn!(
                        "discovery from {source}: cannot resolve SRV target {target}, which keeps \
                         its {kept} addresses: {error}"
                    );
                }
                self.last_error = Some(error);
            }
        }
    }

    /// Returns the members at the targets; `None` while nothing is known of any.
    pub(super) fn report(&self) -> Option<TargetReport> {
        let addresses_of = |record: &SrvRecord| {
            self.states.get(&record.target).map_or(&[][..], |state| &state.addresses)
        };
        let targets: Vec<_> = self
            .records
            .iter()
            .map(|record| SrvTarget { record, addresses: addresses_of(record) })
            .collect();
        let specs = specs_from_targets(&targets);
        if self.states.values().all(|state| state.has_result) {
            return Some(TargetReport::Whole(specs));
        }
        (!specs.is_empty()).then_some(TargetReport::Partial(specs))
    }

    /// Returns the lowest TTL of the targets.
    pub(super) fn ttl(&self) -> Duration {
        let known = self.states.values().filter(|state| state.has_result);
        known.map(|state| state.ttl).min().unwrap_or(Duration::MAX)
    }

    /// Returns why no target has an address.
    pub(super) fn take_error(&mut self) -> ResolveError {
        let is_failing = self.states.values().any(|state| state.is_failing);
        let error = self.last_error.take().filter(|_| is_failing);
        error.unwrap_or(ResolveError::NoTargetAddress)
    }
}
