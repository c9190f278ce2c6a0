//! The schedulers that [`Registry::default`](crate::scheduler::Registry) knows: one line each.

use std::sync::Arc;
use std::time::Duration;

use crate::scheduler::wrap::priority::{OVERPROVISIONING_RANGE, PANIC_THRESHOLD_RANGE};
use crate::scheduler::*;

type BuildResult = Result<Arc<dyn Scheduler>, SchedulerRegistryError>;
type BuiltinFactory = fn(&mut SchedulerParams<'_>) -> BuildResult;

/// Every built-in name, and what makes a scheduler of its parameters.
pub(in crate::scheduler) const BUILTIN_SCHEDULERS: &[(&str, BuiltinFactory)] = &[
    // The kernel's.
    ("rr", |_| Ok(Arc::new(RoundRobin))),
    ("wrr", |_| Ok(Arc::new(WeightedRoundRobin))),
    ("lc", |params| Ok(Arc::new(LeastConnections::new().overhead(take_overhead(params)?)))),
    ("wlc", |params| {
        Ok(Arc::new(WeightedLeastConnections::new().overhead(take_overhead(params)?)))
    }),
    ("sed", |_| Ok(Arc::new(ShortestExpectedDelay))),
    ("nq", |_| Ok(Arc::new(NeverQueue))),
    ("fo", |_| Ok(Arc::new(WeightedFailover))),
    ("ovf", |_| Ok(Arc::new(OverflowConnections))),
    ("dh", |_| Ok(Arc::new(DestinationHash))),
    ("sh", build_sh),
    ("mh", build_mh),
    ("lblc", build_lblc),
    ("lblcr", build_lblcr),
    ("twos", |params| Ok(Arc::new(IpvsTwoChoices::new().overhead(take_overhead(params)?)))),
    // Beyond the kernel.
    ("swrr", build_swrr),
    ("random", |_| Ok(Arc::new(WeightedRandom::new()))),
    ("p2c", |_| Ok(Arc::new(PowerOfTwoChoices::new()))),
    ("peak_ewma", build_peak_ewma),
    ("first", |_| Ok(Arc::new(FirstAvailable::new()))),
    ("hot_cold", build_hot_cold),
    ("ring", build_ring),
    ("rendezvous", build_rendezvous),
    ("maglev", build_maglev),
    // Wrappers.
    ("bounded", build_bounded),
    ("priority", build_priority),
    ("subset", build_subset),
];

fn take_overhead(
    params: &mut SchedulerParams<'_>,
) -> Result<ConnectionOverhead, SchedulerRegistryError> {
    Ok(params.take_value("overhead", "classic or total")?.unwrap_or_default())
}

fn build_sh(params: &mut SchedulerParams<'_>) -> BuildResult {
    let (port, fallback) = (params.take_flag("sh-port")?, params.take_flag("sh-fallback")?);
    Ok(Arc::new(SourceHash::new().hash_port(port).fallback(fallback)))
}

fn build_mh(params: &mut SchedulerParams<'_>) -> BuildResult {
    let (port, fallback) = (params.take_flag("mh-port")?, params.take_flag("mh-fallback")?);
    Ok(Arc::new(IpvsMaglevHash::new().hash_port(port).fallback(fallback)))
}

fn build_lblc(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = LocalityLeastConnections::new().overhead(take_overhead(params)?);
    if let Some(time) = params.take_duration("expiration", Duration::ZERO..)? {
        it = it.expiration(time);
    }
    Ok(Arc::new(it))
}

fn build_lblcr(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = ReplicatedLocalityLeastConnections::new().overhead(take_overhead(params)?);
    if let Some(time) = params.take_duration("expiration", Duration::ZERO..)? {
        it = it.expiration(time);
    }
    Ok(Arc::new(it))
}

fn build_swrr(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = SmoothWeightedRoundRobin::new();
    if let Some(offset) = params.take_value("offset", "a number below 2^64")? {
        it = it.offset(offset);
    }
    Ok(Arc::new(it))
}

fn build_peak_ewma(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = PeakEwma::new();
    if let Some(decay) = params.take_duration("decay", Duration::from_millis(1)..)? {
        it = it.decay(decay);
    }
    Ok(Arc::new(it))
}

fn build_hot_cold(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = HotCold::new();
    if let Some(results) = params.take_value_in("pool", 1..=16)? {
        it = it.pool(results);
    }
    if let Some(probes) = params.take_value_in("probes", 1..=8)? {
        it = it.probes(probes);
    }
    if let Some(quantile) = params.take_value_in("quantile", 0.0..=1.0)? {
        it = it.quantile(quantile);
    }
    if let Some(picks) = params.take_value_in("reuse", 1..=15)? {
        it = it.reuse(picks);
    }
    if let Some(age) = params.take_duration("max_age", Duration::ZERO..=Duration::from_secs(12))? {
        it = it.max_age(age);
    }
    Ok(Arc::new(it))
}

fn build_ring(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = RingHash::new().seed(take_seed(params)?);
    if let Some(replicas) = params.take_value_in("replicas", 1..=1_048_576)? {
        it = it.replicas(replicas);
    }
    Ok(Arc::new(it))
}

fn build_rendezvous(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it =
        if params.take_flag("table")? { RendezvousHash::table() } else { RendezvousHash::new() };
    if let Some(rows) = params.take_value_in("rows", 1..=1 << 24)? {
        it = it.rows(rows);
    }
    Ok(Arc::new(it.seed(take_seed(params)?)))
}

fn build_maglev(params: &mut SchedulerParams<'_>) -> BuildResult {
    let mut it = Maglev::new().seed(take_seed(params)?);
    if let Some(size) = params.take_value("size", "a prime number of slots")? {
        it = it.size(size).map_err(|error| params.invalid_parameters(error))?;
    }
    Ok(Arc::new(it))
}

fn take_seed(params: &mut SchedulerParams<'_>) -> Result<u64, SchedulerRegistryError> {
    Ok(params.take_value("seed", "a number below 2^64")?.unwrap_or(0))
}

fn build_bounded(params: &mut SchedulerParams<'_>) -> BuildResult {
    let factor: f64 = params.take_value_in("factor", 1.01..=1000.0)?.unwrap_or(1.25);
    // In range, so the cast keeps the value.
    let percent = (factor * 100.0).round() as u32;
    Ok(Arc::new(
        BoundedLoad::new(params.take_scheduler()?, percent)
            .map_err(|error| params.invalid_parameters(error))?,
    ))
}

fn build_subset(params: &mut SchedulerParams<'_>) -> BuildResult {
    let client = params.take_value("client", "the number of this client")?.unwrap_or(0);
    let size =
        params.take_value_in("size", 1..)?.ok_or_else(|| params.missing_parameter("size"))?;
    Ok(Arc::new(RandomSubset::new(params.take_scheduler()?, client, size)))
}

fn build_priority(params: &mut SchedulerParams<'_>) -> BuildResult {
    let overprovisioning = params.take_value_in("overprovisioning", OVERPROVISIONING_RANGE)?;
    let panic = params.take_value_in("panic", PANIC_THRESHOLD_RANGE)?;
    let mut it = PriorityTiers::new(params.take_scheduler()?);
    if let Some(percent) = overprovisioning {
        it = it.overprovisioning(percent).map_err(|error| params.invalid_parameters(error))?;
    }
    if let Some(percent) = panic {
        it = it.panic_threshold(percent).map_err(|error| params.invalid_parameters(error))?;
    }
    Ok(Arc::new(it))
}
