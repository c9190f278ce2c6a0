//! Locality-based least connections: `lblc`.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Member, Members};
use crate::scheduler::ipvs::destination_cache::{
    DEFAULT_EXPIRATION, DestinationCache, EXPIRATION, FlowDestination, is_overloaded_for_locality,
};
use crate::scheduler::ipvs::least_cost::{ConnectionOverhead, LeastConnectionsPicker};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `lblc`: keeps each destination on its server until that server is overloaded.
///
/// Choose it in front of caches where the load matters as much as the locality and decisions must
/// equal those of Linux; [`Bounded`](crate::scheduler::BoundedLoad) over a hash scheduler does the
/// same without a cache of destinations.
///
/// Decides as the kernel's `ip_vs_lblc`: a new destination gets the server that
/// [`wlc`](crate::scheduler::WeightedLeastConnections) selects, and keeps it while the server is
/// eligible and has no more active connections than its weight, or no other server has fewer than
/// half of its weight. As in the kernel a server that falls below its upper threshold again keeps
/// its destinations; unlike in the kernel no server exceeds the threshold.
///
/// Reads the flow's destination, or its key, and its time; a flow that has no destination is
/// scheduled by `wlc`.
///
/// # Cost
/// Unlike other rules `lblc` takes a lock with each pick, of one of sixteen shards, and needs
/// memory for up to 24 576 destinations (beyond that new destinations are not cached). Entries that
/// are not used for the expiration are removed, idle entries earlier if there are more than 16 384;
/// both only if flows have a time ([`Flow::time`](crate::scheduler::Flow::time)).
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::LocalityLeastConnections};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, LocalityLeastConnections::new())?;
/// set.insert(Spec::new("a", ()).weight(9))?;
/// set.insert(Spec::new("b", ()).weight(9))?;
/// let flow = Flow::new().destination("198.51.100.1:80".parse()?);
/// let (first, second) = (balancer.pick(&flow)?, balancer.pick(&flow)?);
/// assert_eq!(first.id(), second.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct LocalityLeastConnections {
    overhead: ConnectionOverhead,
    expiration: Duration,
}

impl LocalityLeastConnections {
    /// Creates the rule with the kernel's expiration and the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: ConnectionOverhead::Classic, expiration: DEFAULT_EXPIRATION }
    }

    /// Sets how inactive connections count. Default: [`ConnectionOverhead::Classic`].
    pub const fn overhead(self, overhead: ConnectionOverhead) -> Self {
        Self { overhead, ..self }
    }

    /// Sets the time for which an unused destination is cached (`lblc_expiration`). Default: 24 h.
    pub const fn expiration(self, expiration: Duration) -> Self {
        Self { expiration, ..self }
    }
}

impl Default for LocalityLeastConnections {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalityLeastConnections {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "lblc",
        type_name: "LocalityLeastConnections",
        family: SchedulerFamily::Ipvs,
        summary: "Keeps each destination on one server until that server is overloaded",
        parameters: &[ConnectionOverhead::PARAMETER, EXPIRATION],
    };
}

impl Scheduler for LocalityLeastConnections {
    fn name(&self) -> &str {
        "lblc"
    }

    fn reads_time(&self) -> bool {
        true
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let destinations = previous_as::<LocalityLeastConnectionsPicker>(previous).map_or_else(
            || Arc::new(DestinationCache::new(self.expiration)),
            |old| Arc::clone(&old.destinations),
        );
        Ok(Box::new(LocalityLeastConnectionsPicker {
            destinations,
            fallback: LeastConnectionsPicker::new(self.overhead, members, Member::share),
        }))
    }
}

#[derive(Debug)]
struct LocalityLeastConnectionsPicker {
    /// The serial of each destination's server.
    destinations: Arc<DestinationCache<u64>>,
    fallback: LeastConnectionsPicker,
}

impl Picker for LocalityLeastConnectionsPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let flow = cx.flow();
        let Some(to) = FlowDestination::from_flow(flow) else { return self.fallback.pick(cx) };
        self.destinations.with_entry(to, flow.time(), |serial| {
            let members = cx.members();
            let stays = |i: &usize| {
                let member = &members[*i];
                member.share() != 0
                    && member.has_room()
                    && cx.allows(member)
                    && !is_overloaded_for_locality(members, *i)
            };
            let cached = serial.and_then(|serial| members.position_of_serial(serial)).filter(stays);
            cached.or_else(|| {
                let chosen = self.fallback.pick(cx)?;
                *serial = Some(members[chosen].serial());
                Some(chosen)
            })
        })
    }
}
