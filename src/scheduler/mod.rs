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

mod bounded;
mod builtin;
mod context;
mod dh;
mod error;
mod expression;
mod first;
mod flow;
mod fo;
mod hash;
mod hot_cold;
mod lblc;
mod lblcr;
mod lc;
mod least;
mod locality;
mod maglev;
mod memo;
mod mh;
mod nq;
mod ovf;
mod p2c;
mod params;
mod peak_ewma;
mod places;
mod priority;
mod random;
mod registry;
mod rendezvous;
mod ring;
mod rng;
mod rr;
mod sample;
mod sed;
mod sh;
mod slip;
mod subset;
mod swrr;
mod tier_load;
mod twos;
mod wlc;
mod wrr;

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use crate::backend::Members;

pub use self::bounded::{BalanceFactorError, BoundedLoad};
pub use self::context::PickContext;
pub use self::dh::DestinationHash;
pub use self::error::CompileError;
pub use self::expression::{SchedulerArgument, SchedulerExpression, SchedulerExpressionError};
pub use self::first::FirstAvailable;
pub use self::flow::Flow;
pub use self::fo::WeightedFailover;
pub use self::hash::hash_bytes;
pub use self::hot_cold::{HotCold, LoadProbe, LoadProbeResult, LocalLoadProbe};
pub use self::lblc::LocalityLeastConnections;
pub use self::lblcr::ReplicatedLocalityLeastConnections;
pub use self::lc::LeastConnections;
pub use self::least::{ConnectionOverhead, ParseOverheadError};
pub use self::maglev::{Maglev, MaglevTableSizeError};
pub use self::mh::IpvsMaglevHash;
pub use self::nq::NeverQueue;
pub use self::ovf::OverflowConnections;
pub use self::p2c::PowerOfTwoChoices;
pub use self::params::SchedulerParams;
pub use self::peak_ewma::PeakEwma;
pub use self::priority::{PriorityTiers, PriorityTiersError};
pub use self::random::WeightedRandom;
pub use self::registry::{SchedulerRegistry, SchedulerRegistryError, parse};
pub use self::rendezvous::RendezvousHash;
pub use self::ring::RingHash;
pub use self::rng::Rng;
pub use self::rr::RoundRobin;
pub use self::sed::ShortestExpectedDelay;
pub use self::sh::SourceHash;
#[cfg(feature = "director")]
pub(crate) use self::slip::suggest;
pub use self::subset::RandomSubset;
pub use self::swrr::SmoothWeightedRoundRobin;
pub use self::twos::IpvsTwoChoices;
pub use self::wlc::WeightedLeastConnections;
pub use self::wrr::WeightedRoundRobin;

/// A balancing rule, as configured.
///
/// # Examples
/// A rule that always takes the newest usable member:
/// ```
/// use lvs::backend::Members;
/// use lvs::scheduler::{CompileError, PickContext, Picker, Scheduler};
///
/// #[derive(Debug)]
/// struct Newest;
///
/// impl Scheduler for Newest {
///     fn name(&self) -> &str {
///         "newest"
///     }
///
///     fn compile(
///         &self,
///         _members: &Members,
///         _previous: Option<&dyn Picker>,
///     ) -> Result<Box<dyn Picker>, CompileError> {
///         Ok(Box::new(NewestPicker))
///     }
/// }
///
/// #[derive(Debug)]
/// struct NewestPicker;
///
/// impl Picker for NewestPicker {
///     fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
///         (0..cx.members().len()).find(|&i| cx.usable(i))
///     }
/// }
///
/// let set = lvs::BackendSet::new();
/// let balancer = lvs::Balancer::new(&set, Newest)?;
/// set.insert(lvs::Spec::new("a", ()))?;
/// set.insert(lvs::Spec::new("b", ()))?;
/// assert_eq!(balancer.pick(&lvs::Flow::new())?.id().as_str(), "b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Scheduler: Debug + Send + Sync {
    /// The short name in configuration, metrics and logs: `"rr"`, `"wlc"`, `"mh"`.
    fn name(&self) -> &str;

    /// Tells whether the rule gets better with the [time](Flow::time) of a pick and the
    /// [latency](crate::Lease::complete_after) of what came of it: whoever carries the traffic reads
    /// the clock only then. Default: no.
    fn reads_time(&self) -> bool {
        false
    }

    /// Builds the picker for one list of members.
    ///
    /// Called off the hot path, each time membership, a weight or an eligibility changes.
    /// `previous` is the picker in service, whatever its type, for rules that carry something over
    /// (a cursor, a cache): try `(previous as &dyn Any).downcast_ref`.
    ///
    /// # Errors
    /// When the rule cannot work with the list; the change that led to it is then refused.
    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError>;
}

/// The hot half of a [`Scheduler`].
pub trait Picker: Any + Debug + Send + Sync {
    /// Chooses a member by its position in [`PickContext::members`]; `None` if the rule finds none.
    ///
    /// Asks [`PickContext::usable`] before it chooses. Called when some member has a
    /// [share](crate::backend::Member::share) and also when none has but one that is down would:
    /// then `usable` says no to all, and only a rule with lists of its own (`priority` in panic) can
    /// answer anything but `None`. A position that is out of range counts as `None`.
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize>;
}

impl<S: Scheduler + ?Sized> Scheduler for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        (**self).compile(members, previous)
    }
}

impl<S: Scheduler + ?Sized> Scheduler for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn reads_time(&self) -> bool {
        (**self).reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        (**self).compile(members, previous)
    }
}

/// Finds out what kind of picker was in service.
fn previous_as<P: Picker>(previous: Option<&dyn Picker>) -> Option<&P> {
    (previous? as &dyn Any).downcast_ref()
}
