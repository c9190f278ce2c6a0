//! The schedulers that [`Registry::default`](super::Registry) knows: one line each.

use std::sync::Arc;
use std::time::Duration;

use super::priority::{OVERPROVISIONING_RANGE, PANIC_RANGE};
use super::*;

type Built = Result<Arc<dyn Scheduler>, RegistryError>;
type Factory = fn(&mut Params<'_>) -> Built;

/// Every built-in name, and what makes a scheduler of its parameters.
pub(super) const SCHEDULERS: &[(&str, Factory)] = &[
    // The kernel's.
    ("rr", |_| Ok(Arc::new(RoundRobin))),
    ("wrr", |_| Ok(Arc::new(WeightedRoundRobin))),
    ("lc", |params| Ok(Arc::new(LeastConnections::new().with_overhead(overhead(params)?)))),
    ("wlc", |params| {
        Ok(Arc::new(WeightedLeastConnections::new().with_overhead(overhead(params)?)))
    }),
    ("sed", |_| Ok(Arc::new(ShortestExpectedDelay))),
    ("nq", |_| Ok(Arc::new(NeverQueue))),
    ("fo", |_| Ok(Arc::new(Failover))),
    ("ovf", |_| Ok(Arc::new(Overflow))),
    ("dh", |_| Ok(Arc::new(DestinationHash))),
    ("sh", sh),
    ("mh", mh),
    ("lblc", lblc),
    ("lblcr", lblcr),
    ("twos", |params| Ok(Arc::new(TwoChoices::new().with_overhead(overhead(params)?)))),
    // Beyond the kernel.
    ("swrr", swrr),
    ("random", |_| Ok(Arc::new(Random::new()))),
    ("p2c", |_| Ok(Arc::new(PowerOfTwo::new()))),
    ("peak_ewma", peak_ewma),
    ("first", |_| Ok(Arc::new(First::new()))),
    ("hot_cold", hot_cold),
    ("ring", ring),
    ("rendezvous", rendezvous),
    ("maglev", maglev),
    // Wrappers.
    ("bounded", bounded),
    ("priority", priority),
    ("subset", subset),
];

fn overhead(params: &mut Params<'_>) -> Result<Overhead, RegistryError> {
    Ok(params.value("overhead", "classic or total")?.unwrap_or_default())
}

fn sh(params: &mut Params<'_>) -> Built {
    let (port, fallback) = (params.flag("sh-port")?, params.flag("sh-fallback")?);
    Ok(Arc::new(SourceHash::new().with_port(port).with_fallback(fallback)))
}

fn mh(params: &mut Params<'_>) -> Built {
    let (port, fallback) = (params.flag("mh-port")?, params.flag("mh-fallback")?);
    Ok(Arc::new(MaglevHash::new().with_port(port).with_fallback(fallback)))
}

fn lblc(params: &mut Params<'_>) -> Built {
    let mut it = LocalityLeastConnections::new().with_overhead(overhead(params)?);
    if let Some(time) = params.duration("expiration", Duration::ZERO..)? {
        it = it.with_expiration(time);
    }
    Ok(Arc::new(it))
}

fn lblcr(params: &mut Params<'_>) -> Built {
    let mut it = ReplicatedLocality::new().with_overhead(overhead(params)?);
    if let Some(time) = params.duration("expiration", Duration::ZERO..)? {
        it = it.with_expiration(time);
    }
    Ok(Arc::new(it))
}

fn swrr(params: &mut Params<'_>) -> Built {
    let mut it = SmoothWeightedRoundRobin::new();
    if let Some(offset) = params.value("offset", "a number below 2^64")? {
        it = it.with_offset(offset);
    }
    Ok(Arc::new(it))
}

fn peak_ewma(params: &mut Params<'_>) -> Built {
    let mut it = PeakEwma::new();
    if let Some(decay) = params.duration("decay", Duration::from_millis(1)..)? {
        it = it.with_decay(decay);
    }
    Ok(Arc::new(it))
}

fn hot_cold(params: &mut Params<'_>) -> Built {
    let mut it = HotCold::new();
    if let Some(results) = params.value_in("pool", 1..=16)? {
        it = it.with_pool(results);
    }
    if let Some(probes) = params.value_in("probes", 1..=8)? {
        it = it.with_probes(probes);
    }
    if let Some(quantile) = params.value_in("quantile", 0.0..=1.0)? {
        it = it.with_quantile(quantile);
    }
    if let Some(picks) = params.value_in("reuse", 1..=15)? {
        it = it.with_reuse(picks);
    }
    if let Some(age) = params.duration("max_age", Duration::ZERO..=Duration::from_secs(12))? {
        it = it.with_max_age(age);
    }
    Ok(Arc::new(it))
}

fn ring(params: &mut Params<'_>) -> Built {
    let mut it = Ring::new().with_seed(seed(params)?);
    if let Some(replicas) = params.value_in("replicas", 1..=1_048_576)? {
        it = it.with_replicas(replicas);
    }
    Ok(Arc::new(it))
}

fn rendezvous(params: &mut Params<'_>) -> Built {
    let mut it = if params.flag("table")? { Rendezvous::table() } else { Rendezvous::new() };
    if let Some(rows) = params.value_in("rows", 1..=1 << 24)? {
        it = it.with_table(rows);
    }
    Ok(Arc::new(it.with_seed(seed(params)?)))
}

fn maglev(params: &mut Params<'_>) -> Built {
    let mut it = Maglev::new().with_seed(seed(params)?);
    if let Some(size) = params.value("size", "a prime number of slots")? {
        it = it.with_size(size).map_err(|error| params.refuse(error))?;
    }
    Ok(Arc::new(it))
}

fn seed(params: &mut Params<'_>) -> Result<u64, RegistryError> {
    Ok(params.value("seed", "a number below 2^64")?.unwrap_or(0))
}

fn bounded(params: &mut Params<'_>) -> Built {
    let factor: f64 = params.value_in("factor", 1.01..=1000.0)?.unwrap_or(1.25);
    // In range, so the cast keeps the value.
    let percent = (factor * 100.0).round() as u32;
    Ok(Arc::new(Bounded::new(params.scheduler()?, percent).map_err(|error| params.refuse(error))?))
}

fn subset(params: &mut Params<'_>) -> Built {
    let client = params.value("client", "the number of this client")?.unwrap_or(0);
    let size = params.value_in("size", 1..)?.ok_or_else(|| params.missing("size"))?;
    Ok(Arc::new(Subset::new(params.scheduler()?, client, size)))
}

fn priority(params: &mut Params<'_>) -> Built {
    let overprovisioning = params.value_in("overprovisioning", OVERPROVISIONING_RANGE)?;
    let panic = params.value_in("panic", PANIC_RANGE)?;
    let mut it = Priority::new(params.scheduler()?);
    if let Some(percent) = overprovisioning {
        it = it.with_overprovisioning(percent).map_err(|error| params.refuse(error))?;
    }
    if let Some(percent) = panic {
        it = it.with_panic_threshold(percent).map_err(|error| params.refuse(error))?;
    }
    Ok(Arc::new(it))
}
