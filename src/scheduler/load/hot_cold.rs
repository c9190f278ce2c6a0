//! Prequal's rule over a pool of probe results: `hot_cold`.

mod pool;
mod probe;

use std::sync::Arc;
use std::time::Duration;

use self::pool::{MAX_POOL_SIZE, PackedProbeResult, ProbePool, ProbePoolConfig};
use crate::backend::{Members, SetContext};
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
};
use crate::scheduler::sampler::WeightedSampler;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

pub use self::probe::{LoadProbe, LoadProbeResult, LocalLoadProbe};

/// `hot_cold`: selects, among recently probed members that are not hot, the member of least
/// latency.
///
/// The rule of Prequal (B. Wydrowski, R. Kleinberg, S. Rumble, A. Archer, "Load is not what you
/// should balance: introducing Prequal", NSDI 2024), which does not equalise load but avoids
/// servers that are about to be slow. Choose it for many clients over many servers that also do
/// other work, where some overload cannot be avoided: it detects overload without weights, and
/// bounds both latency and requests in flight. For a single balancer that sends all requests of its
/// servers, [`p2c`](crate::scheduler::PowerOfTwoChoices) does nearly as well at a quarter of the
/// cost.
///
/// # The rule
/// Each pick probes a few (3) members, drawn in proportion to their shares (in a set of so few,
/// each once), and stores the results in a pool of 16, in place of the oldest. A member of the pool
/// is *hot* if its requests in flight, relative to its weight, exceed the 0.84 quantile of the last
/// 64 results, computed anew after each 64 results. The rule selects the cold member with the least
/// latency; if all are hot, the member with the fewest requests in flight. The selected member's
/// other results in the pool count one request more, and the result that selected it is used up;
/// results older than 1 s are ignored.
///
/// Unusable members are not probed and are skipped in the pool; if no result is left, a member is
/// drawn as by [`random`](crate::scheduler::WeightedRandom). Members of weight 0 are never probed;
/// a single member gets every pick. The pool starts empty after each change of the set.
///
/// # Probes
/// A [`LoadProbe`] reports the load of a member. [`LocalLoadProbe`], the default, reads this
/// process's own counters and estimates: the servers need not cooperate, but requests of other
/// clients are visible only in the latency. With many clients, query the servers in the background
/// (a pick cannot wait) and return their last reports: see [`LoadProbe`].
///
/// # Where it differs from the paper
/// - The paper's clients probe asynchronously, off the path of the request; here the result must be
///   available at once.
/// - The oldest results are overwritten, 3 with each pick. The paper removes one result with each
///   pick, oldest and worst in turn; here no result stays for more than six picks, and in
///   simulations the removal of the worst made no difference.
/// - Reuse is a whole number and fixed; the paper computes it from the sizes of pool and set
///   (1.3 for a hundred servers). With fewer than three probes a pick, raise it.
/// - Weights: the paper's servers are equal. Here members are probed in proportion to their shares,
///   and requests in flight are counted per share.
/// - [`LocalLoadProbe`]'s latency is a peak-sensitive mean of this client's observations, times the
///   requests in flight; the paper's servers report their median latency at about the current
///   number of requests. It reports failing members with infinite requests in flight, so that fast
///   errors do not attract traffic.
///
/// # Cost
/// O(probes + pool) without lock or allocation: with the defaults 60 to 80 ns in addition to the
/// lease, about 12 of them for each probe, and about fifteen plain writes to cache lines that
/// threads share. Where many threads pick give each its own pool by
/// [`Balancer::fork`](crate::Balancer::fork). 512 bytes for the pool, and 12 bytes a member where
/// weights differ; O(n) for a change of the set.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// # use lvs::{BackendSet, Balancer, Flow, Outcome, Spec, scheduler::HotCold};
///
/// let set = BackendSet::new();
/// for name in ["a", "b", "c"] {
///     set.insert(Spec::new(name, ()))?;
/// }
/// let balancer = Balancer::new(&set, HotCold::new().probes(3)?)?;
/// let flow = Flow::new().time(Instant::now());
/// let millis = |name: &str| if name == "b" { 10 } else { 50 };
/// for _ in 0..3 {
///     let lease = balancer.pick(&flow)?; // unknown at first: each is selected once
///     let latency = Duration::from_millis(millis(lease.id().as_str()));
///     lease.complete_with_latency(Outcome::Ok, latency, Instant::now());
/// }
/// assert_eq!(balancer.pick(&flow)?.id().as_str(), "b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HotCold<P = LocalLoadProbe> {
    probe: Arc<P>,
    probes: usize,
    pool_config: ProbePoolConfig,
}

impl HotCold {
    /// Creates the rule with the paper's parameters and [`LocalLoadProbe`].
    #[must_use]
    pub fn new() -> Self {
        Self { probe: Arc::new(LocalLoadProbe), probes: 3, pool_config: ProbePoolConfig::default() }
    }
}

impl Default for HotCold {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> HotCold<P> {
    /// Sets the probe that reports the load of a member. Default: [`LocalLoadProbe`].
    #[must_use]
    pub fn probe<Q: LoadProbe>(self, probe: Q) -> HotCold<Q> {
        HotCold { probe: Arc::new(probe), probes: self.probes, pool_config: self.pool_config }
    }

    /// Sets the number of probe results that are kept. Default: 16.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 1..=16.
    pub fn pool(mut self, results: usize) -> Result<Self, SchedulerParameterError> {
        self.pool_config.size = POOL.check_integer("hot_cold", results)?;
        Ok(self)
    }

    /// Sets the number of members that each pick probes. Default: 3.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 1..=8.
    pub fn probes(self, probes: usize) -> Result<Self, SchedulerParameterError> {
        Ok(Self { probes: PROBES.check_integer("hot_cold", probes)?, ..self })
    }

    /// Sets the quantile of requests in flight above which a member is hot. Default: 0.84.
    ///
    /// At 1.0 no member is hot and latency alone decides; the lower the quantile, the more the
    /// number of requests in flight decides. The paper finds 0.6 to 0.9 useful.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 0.0..=1.0, and for NaN.
    pub fn quantile(mut self, quantile: f64) -> Result<Self, SchedulerParameterError> {
        let quantile = QUANTILE.check_decimal("hot_cold", quantile)?;
        self.pool_config.hot_quantile_permille = (quantile * 1000.0) as usize;
        Ok(self)
    }

    /// Sets the number of picks that a probe result may decide. Default: 1.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a number that is not within 1..=15.
    pub fn reuse(mut self, picks: u8) -> Result<Self, SchedulerParameterError> {
        self.pool_config.uses_per_result = REUSE.check_integer("hot_cold", picks)?;
        Ok(self)
    }

    /// Sets the age up to which a probe result counts, rounded down to a multiple of 102.4 ms but
    /// not to 0. Default: 1 s.
    ///
    /// Needs the time of each pick ([`Flow::time`](crate::scheduler::Flow::time)).
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for an age that is not within 100 ms..=12 s.
    pub fn max_age(mut self, age: Duration) -> Result<Self, SchedulerParameterError> {
        self.pool_config.set_max_age(MAX_AGE.check_duration("hot_cold", age)?);
        Ok(self)
    }
}

const POOL: SchedulerParameter = SchedulerParameter::new(
    "pool",
    ParameterKind::Integer { min: 1, max: MAX_POOL_SIZE as u64 },
    Some("16"),
    "The number of probe results that are kept",
);
const PROBES: SchedulerParameter = SchedulerParameter::new(
    "probes",
    ParameterKind::Integer { min: 1, max: 8 },
    Some("3"),
    "The number of servers that each pick probes",
);
const QUANTILE: SchedulerParameter = SchedulerParameter::new(
    "quantile",
    ParameterKind::Decimal { min: 0.0, max: 1.0 },
    Some("0.84"),
    "The quantile of requests in flight above which a server counts as crowded",
);
const REUSE: SchedulerParameter = SchedulerParameter::new(
    "reuse",
    ParameterKind::Integer { min: 1, max: 15 },
    Some("1"),
    "The number of picks that a probe result may decide",
);
const MAX_AGE: SchedulerParameter = SchedulerParameter::new(
    "max_age",
    ParameterKind::Duration { min: Duration::from_millis(100), max: Duration::from_secs(12) },
    Some("1s"),
    "The age up to which a probe result counts, in steps of 102.4 ms",
);

impl HotCold {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "hot_cold",
        type_name: "HotCold",
        family: SchedulerFamily::Load,
        summary: "Selects, among recently probed servers that are not crowded, the server with the lowest latency (Prequal)",
        parameters: &[POOL, PROBES, QUANTILE, REUSE, MAX_AGE],
    };
}

impl<P: LoadProbe> Scheduler for HotCold<P> {
    fn name(&self) -> &str {
        "hot_cold"
    }

    fn reads_time(&self) -> bool {
        true
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(HotColdPicker {
            sampler: WeightedSampler::new(members)?,
            probe: Arc::clone(&self.probe),
            probes: self.probes,
            pool: ProbePool::new(self.pool_config),
            shared: members.context().cloned(),
        }))
    }
}

#[derive(Debug)]
struct HotColdPicker<P> {
    sampler: WeightedSampler,
    probe: Arc<P>,
    probes: usize,
    pool: ProbePool,
    /// The clock of the set; `None` for an empty list.
    shared: Option<Arc<SetContext>>,
}

impl<P: LoadProbe> Picker for HotColdPicker<P> {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let now = cx.flow().time();
        let tick = self.shared.as_ref()?.clock.advance_or_latest(now);
        // Of a few members each is probed once; of many some are drawn, sometimes one twice.
        let is_each_probed = self.sampler.drawable_count() <= self.probes;
        for k in 0..self.probes.min(self.sampler.drawable_count()) {
            let position = if is_each_probed {
                self.sampler.drawable(k)
            } else {
                self.sampler.draw(cx.rng())
            }?;
            if cx.is_usable(position) {
                let member = &cx.members()[position];
                let result = self.probe.probe(member, now);
                self.pool.add(PackedProbeResult::new(position, member.share(), result, tick));
            }
        }
        self.pool.choose(cx, tick).or_else(|| self.sampler.pick_usable(cx))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests;
