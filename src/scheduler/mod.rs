//! Schedulers: the rules that select a backend for a connection or request.
//!
//! A [`Scheduler`] is a rule as configured. For each change of the backend set it
//! [compiles](Scheduler::compile) a [`Picker`], which selects members on the hot path: shared by
//! all threads, without lock, allocation, system call or clock.
//!
//! A rule of your own is a pair of types that implement these traits; see [`Scheduler`]. A
//! [`SchedulerRegistry`] builds schedulers from names and parameters in configuration;
//! `docs/schedulers.md` lists them.
//!
//! # Response times under each rule
//! The table shows a simulation of 100 servers with a queue each. Requests arrive at random
//! (Poisson), service times are exponentially distributed. All times are in mean service times,
//! from the arrival of a request to its response; "the wait" is the part before the service begins.
//! The first columns are for equal servers at 90 % of their capacity; the last three for a set in
//! which one server is ten times slower than the others, at 70 % of the capacity, with the share of
//! the requests that the slow server gets: its capacity is 0.14 % of them. "grows" marks a queue
//! that grows without end. Requests come from any client for any destination; one balancer sees all
//! of them.
//!
#![doc = include_str!("quality.md")]
//!
//! In theory `random` is an M/M/1 queue with mean 10, p50 6.9 and p99 46.1; for two choices
//! Mitzenmacher (2001) has a mean of 2.65 by simulation of 100 servers, and 2.61 in the limit of
//! many. `sh` and `dh` have 256 buckets and a ring places points at random, so that with 100
//! servers some servers get more than their capacity; [`BoundedLoad`] prevents that. `lc`, `wlc`,
//! `sed` and `nq` know all queues exactly here; with several balancers that do not see each other's
//! requests, or with stale counts, they lose that advantage, and their cost grows with the set.
//! `fo`, `ovf` and [`FirstAvailable`] fill one server after another by design and are left out.
//! `cargo test --release --test quality table -- --nocapture` makes the table.

mod arithmetic;
mod error;
mod flow;
mod group_cache;
mod hash;
mod hashing;
mod ipvs;
mod load;
mod lookup_table;
mod parameter;
mod pick_context;
mod registry;
mod rng;
mod sampler;
#[cfg(all(test, not(lvs_loom)))]
mod testing;
mod traits;
mod wrap;

pub use self::error::CompileError;
pub use self::flow::{Flow, FlowView};
pub use self::hash::{Maglev, RendezvousHash, RingHash};
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
#[cfg(feature = "packet")]
pub(crate) use self::lookup_table::LookupRule;
pub use self::lookup_table::LookupTable;
pub use self::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter, SchedulerParameterError,
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
pub use self::wrap::{BoundedLoad, PriorityTiers, RandomSubset};
