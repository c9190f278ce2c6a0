//! The built-in schedulers: their descriptions and factories.

use std::sync::Arc;

use crate::scheduler::parameter::{SchedulerInfo, SchedulerParameter};
use crate::scheduler::registry::error::SchedulerRegistryError;
use crate::scheduler::registry::params::SchedulerParams;
use crate::scheduler::{
    BoundedLoad, ConnectionOverhead, DestinationHash, FirstAvailable, HotCold, IpvsMaglevHash,
    IpvsTwoChoices, LeastConnections, LocalityLeastConnections, Maglev, NeverQueue,
    OverflowConnections, PeakEwma, PowerOfTwoChoices, PriorityTiers, RandomSubset, RendezvousHash,
    ReplicatedLocalityLeastConnections, RingHash, RoundRobin, Scheduler, ShortestExpectedDelay,
    SmoothWeightedRoundRobin, SourceHash, WeightedFailover, WeightedLeastConnections,
    WeightedRandom, WeightedRoundRobin,
};

type BuildResult = Result<Arc<dyn Scheduler>, SchedulerRegistryError>;
type BuiltinFactory = fn(&mut SchedulerParams<'_>) -> BuildResult;

/// The description of every built-in scheduler, and its factory.
pub(super) const BUILTIN_SCHEDULERS: &[(&SchedulerInfo, BuiltinFactory)] = &[
    // Linux IPVS.
    (&RoundRobin::INFO, |_| Ok(Arc::new(RoundRobin::new()))),
    (&WeightedRoundRobin::INFO, |_| Ok(Arc::new(WeightedRoundRobin))),
    (&LeastConnections::INFO, |params| {
        Ok(Arc::new(LeastConnections::new().overhead(take_overhead(params)?)))
    }),
    (&WeightedLeastConnections::INFO, |params| {
        Ok(Arc::new(WeightedLeastConnections::new().overhead(take_overhead(params)?)))
    }),
    (&ShortestExpectedDelay::INFO, |_| Ok(Arc::new(ShortestExpectedDelay))),
    (&NeverQueue::INFO, |_| Ok(Arc::new(NeverQueue))),
    (&WeightedFailover::INFO, |_| Ok(Arc::new(WeightedFailover))),
    (&OverflowConnections::INFO, |_| Ok(Arc::new(OverflowConnections))),
    (&DestinationHash::INFO, build_dh),
    (&SourceHash::INFO, build_sh),
    (&IpvsMaglevHash::INFO, build_mh),
    (&LocalityLeastConnections::INFO, build_lblc),
    (&ReplicatedLocalityLeastConnections::INFO, build_lblcr),
    (&IpvsTwoChoices::INFO, |params| {
        Ok(Arc::new(IpvsTwoChoices::new().overhead(take_overhead(params)?)))
    }),
    // Weight, load and latency.
    (&SmoothWeightedRoundRobin::INFO, build_swrr),
    (&WeightedRandom::INFO, |_| Ok(Arc::new(WeightedRandom::new()))),
    (&PowerOfTwoChoices::INFO, |_| Ok(Arc::new(PowerOfTwoChoices::new()))),
    (&PeakEwma::INFO, build_peak_ewma),
    (&FirstAvailable::INFO, |_| Ok(Arc::new(FirstAvailable::new()))),
    (&HotCold::INFO, build_hot_cold),
    // Consistent hashing.
    (&RingHash::INFO, build_ring),
    (&RendezvousHash::INFO, build_rendezvous),
    (&Maglev::INFO, build_maglev),
    // Wrappers.
    (&BoundedLoad::<()>::INFO, build_bounded),
    (&PriorityTiers::<()>::INFO, build_priority),
    (&RandomSubset::<()>::INFO, build_subset),
];

/// Returns the declaration of a parameter.
///
/// # Panics
/// If the scheduler has no parameter of that name; a test builds every scheduler.
fn declared(info: &SchedulerInfo, name: &str) -> &'static SchedulerParameter {
    info.parameters.iter().find(|parameter| parameter.name == name).expect("a declared parameter")
}

fn take_overhead(
    params: &mut SchedulerParams<'_>,
) -> Result<ConnectionOverhead, SchedulerRegistryError> {
    Ok(params.take_declared_choice(&ConnectionOverhead::PARAMETER)?.unwrap_or_default())
}

fn take_seed(
    params: &mut SchedulerParams<'_>,
    info: &SchedulerInfo,
) -> Result<u64, SchedulerRegistryError> {
    Ok(params.take_declared_integer(declared(info, "seed"))?.unwrap_or(0))
}

fn build_dh(params: &mut SchedulerParams<'_>) -> BuildResult {
    let is_sorted = params.take_declared_flag(declared(&DestinationHash::INFO, "sorted"))?;
    Ok(Arc::new(DestinationHash::new().sorted(is_sorted)))
}

fn build_sh(params: &mut SchedulerParams<'_>) -> BuildResult {
    let port = params.take_declared_flag(declared(&SourceHash::INFO, "sh-port"))?;
    let fallback = params.take_declared_flag(declared(&SourceHash::INFO, "sh-fallback"))?;
    let is_sorted = params.take_declared_flag(declared(&SourceHash::INFO, "sorted"))?;
    Ok(Arc::new(SourceHash::new().hash_port(port).fallback(fallback).sorted(is_sorted)))
}

fn build_mh(params: &mut SchedulerParams<'_>) -> BuildResult {
    let port = params.take_declared_flag(declared(&IpvsMaglevHash::INFO, "mh-port"))?;
    let fallback = params.take_declared_flag(declared(&IpvsMaglevHash::INFO, "mh-fallback"))?;
    let is_sorted = params.take_declared_flag(declared(&IpvsMaglevHash::INFO, "sorted"))?;
    Ok(Arc::new(IpvsMaglevHash::new().hash_port(port).fallback(fallback).sorted(is_sorted)))
}

fn build_lblc(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &LocalityLeastConnections::INFO;
    let mut rule = LocalityLeastConnections::new().overhead(take_overhead(params)?);
    if let Some(value) = params.take_declared_duration(declared(info, "expiration"))? {
        rule = rule.expiration(value);
    }
    Ok(Arc::new(rule))
}

fn build_lblcr(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &ReplicatedLocalityLeastConnections::INFO;
    let mut rule = ReplicatedLocalityLeastConnections::new().overhead(take_overhead(params)?);
    if let Some(value) = params.take_declared_duration(declared(info, "expiration"))? {
        rule = rule.expiration(value);
    }
    Ok(Arc::new(rule))
}

fn build_swrr(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &SmoothWeightedRoundRobin::INFO;
    let mut rule = SmoothWeightedRoundRobin::new();
    if let Some(value) = params.take_declared_integer(declared(info, "offset"))? {
        rule = rule.offset(value);
    }
    Ok(Arc::new(rule))
}

fn build_peak_ewma(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &PeakEwma::INFO;
    let mut rule = PeakEwma::new();
    if let Some(value) = params.take_declared_duration(declared(info, "decay"))? {
        rule = rule.decay(value)?;
    }
    Ok(Arc::new(rule))
}

fn build_hot_cold(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &HotCold::INFO;
    let mut rule = HotCold::new();
    if let Some(value) = params.take_declared_integer(declared(info, "pool"))? {
        rule = rule.pool(value)?;
    }
    if let Some(value) = params.take_declared_integer(declared(info, "probes"))? {
        rule = rule.probes(value)?;
    }
    if let Some(value) = params.take_declared_decimal(declared(info, "quantile"))? {
        rule = rule.quantile(value)?;
    }
    if let Some(value) = params.take_declared_integer(declared(info, "reuse"))? {
        rule = rule.reuse(value)?;
    }
    if let Some(value) = params.take_declared_duration(declared(info, "max_age"))? {
        rule = rule.max_age(value)?;
    }
    Ok(Arc::new(rule))
}

fn build_ring(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &RingHash::INFO;
    let mut rule = RingHash::new();
    if let Some(value) = params.take_declared_integer(declared(info, "replicas"))? {
        rule = rule.replicas(value)?;
    }
    Ok(Arc::new(rule.seed(take_seed(params, info)?)))
}

fn build_rendezvous(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &RendezvousHash::INFO;
    let mut rule = if params.take_declared_flag(declared(info, "table"))? {
        RendezvousHash::table()
    } else {
        RendezvousHash::new()
    };
    if let Some(value) = params.take_declared_integer(declared(info, "rows"))? {
        rule = rule.rows(value)?;
    }
    Ok(Arc::new(rule.seed(take_seed(params, info)?)))
}

fn build_maglev(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &Maglev::INFO;
    let mut rule = Maglev::new();
    if let Some(value) = params.take_declared_integer(declared(info, "size"))? {
        rule = rule.size(value)?;
    }
    Ok(Arc::new(rule.seed(take_seed(params, info)?)))
}

fn build_bounded(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &BoundedLoad::<()>::INFO;
    let factor = params.take_declared_decimal(declared(info, "factor"))?.unwrap_or(1.25);
    // The factor is in range, so the cast keeps the value.
    let percent = (factor * 100.0).round() as u32;
    Ok(Arc::new(BoundedLoad::new(params.take_scheduler()?, percent)?))
}

fn build_subset(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &RandomSubset::<()>::INFO;
    let client = params.take_declared_integer(declared(info, "client"))?.unwrap_or(0);
    let size = params
        .take_declared_integer(declared(info, "size"))?
        .ok_or_else(|| params.missing_parameter("size"))?;
    Ok(Arc::new(RandomSubset::new(params.take_scheduler()?, client, size)?))
}

fn build_priority(params: &mut SchedulerParams<'_>) -> BuildResult {
    let info = &PriorityTiers::<()>::INFO;
    let overprovisioning = params.take_declared_integer(declared(info, "overprovisioning"))?;
    let panic_threshold = params.take_declared_integer(declared(info, "panic"))?;
    let zone = params.take_declared_zone(declared(info, "zone"))?;
    let traffic = params.take_declared_integer(declared(info, "traffic"))?;
    let mut rule = PriorityTiers::new(params.take_scheduler()?);
    if let Some(zone) = zone {
        rule = rule.zone(zone);
    }
    if let Some(percent) = traffic {
        rule = rule.traffic(percent)?;
    }
    if let Some(percent) = overprovisioning {
        rule = rule.overprovisioning(percent)?;
    }
    if let Some(percent) = panic_threshold {
        rule = rule.panic_threshold(percent)?;
    }
    Ok(Arc::new(rule))
}
