//! Whom to choose: the rules, and what they are compiled into.
//!
//! A [`Scheduler`] is a rule as configured. Each time its set changes it is given the new list and
//! [compiles](Scheduler::compile) a [`Picker`], the hot half: shared by all threads, without lock,
//! allocation, system call or clock.
//!
//! A rule of your own is a type that implements both; see [`Scheduler`].
//!
//! # What each makes of a queue
//! 100 servers with a queue each, requests at random (Poisson) with service times that are
//! exponentially distributed; all times in mean service times, from arrival to answer, and of that
//! the wait for the service to begin. First, equal servers at 0.9 of what they can do; then one of
//! them ten times slower than the others, at 0.7, and the share of the requests that it gets: it
//! could do 0.14 %. Where a queue grows without end there is no figure. Requests come from any
//! client for any destination; one balancer sees them all.
//!
#![doc = include_str!("quality.md")]
//!
//! To compare: chance (`random`) is M/M/1, whose mean is 10, p50 6.9 and p99 46.1; for two choices
//! Mitzenmacher (2001) has a mean of 2.65 by simulation of 100 servers, and 2.61 as the limit of many.
//! The tables of `sh` and `dh` have 256 rows and a ring has chance, so that with 100 servers some get
//! more than they can do; [`BoundedLoad`] is the remedy. `lc` and its kin know all queues exactly here;
//! several balancers that do not know of each other's requests, or stale counts, take that lead away,
//! and it costs them time that grows with the set. `fo`, `ovf` and [`FirstAvailable`] fill one server by
//! design. `cargo test --release --test quality table -- --nocapture` makes the table.

mod error;
mod flow;
mod group_cache;
mod hash;
mod hashing;
mod ipvs;
mod load;
mod pick_context;
mod registry;
mod rng;
mod sampler;
#[cfg(all(test, not(lvs_loom)))]
mod testing;
mod traits;
mod wrap;

pub use self::error::CompileError;
pub use self::flow::Flow;
pub use self::hash::{Maglev, MaglevTableSizeError, RendezvousHash, RingHash};
pub use self::hashing::hash_bytes;
pub use self::ipvs::{
    ConnectionOverhead, DestinationHash, IpvsMaglevHash, IpvsTwoChoices, LeastConnections,
    LocalityLeastConnections, NeverQueue, OverflowConnections, ParseOverheadError,
    ReplicatedLocalityLeastConnections, RoundRobin, ShortestExpectedDelay, SourceHash,
    WeightedFailover, WeightedLeastConnections, WeightedRoundRobin,
};
pub use self::load::{
    FirstAvailable, HotCold, LoadProbe, LoadProbeResult, LocalLoadProbe, PeakEwma,
    PowerOfTwoChoices, SmoothWeightedRoundRobin, WeightedRandom,
};
pub use self::pick_context::PickContext;
#[cfg(feature = "director")]
pub(crate) use self::registry::suggest;
pub use self::registry::{
    SchedulerArgument, SchedulerExpression, SchedulerExpressionError, SchedulerParams,
    SchedulerRegistry, SchedulerRegistryError, parse,
};
pub use self::rng::Rng;
pub use self::traits::{Picker, Scheduler};
pub use self::wrap::{
    BalanceFactorError, BoundedLoad, PriorityTiers, PriorityTiersError, RandomSubset,
};
