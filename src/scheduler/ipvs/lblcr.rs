//! Locality-based least connections with replication: `lblcr`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::backend::{Member, Members};
use crate::scheduler::ipvs::destination_cache::{
    DEFAULT_EXPIRATION, DestinationCache, EXPIRATION, FlowDestination, is_overloaded_for_locality,
};
use crate::scheduler::ipvs::least_cost::{ConnectionOverhead, LeastConnectionsPicker};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::traits::previous_as;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `lblcr`: keeps each destination on a set of servers, which grows while they are overloaded.
///
/// Choose it instead of [`lblc`](crate::scheduler::LocalityLeastConnections) where single
/// destinations are too busy for one cache. Decides as the kernel's `ip_vs_lblcr`: the least loaded
/// of the destination's servers; if that server is overloaded, the server that
/// [`wlc`](crate::scheduler::WeightedLeastConnections) selects is added to the set. A set that has
/// not changed for the expiration loses its most loaded server.
///
/// Reads the flow's destination, or its key, and its time; a flow that has no destination is
/// scheduled by `wlc`.
///
/// # Cost
/// As `lblc`, with a comparison for each server of the set.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::ReplicatedLocalityLeastConnections};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, ReplicatedLocalityLeastConnections::new())?;
/// set.insert(Spec::new("a", ()).weight(1))?;
/// set.insert(Spec::new("b", ()).weight(1))?;
/// let flow = Flow::new().destination("198.51.100.1:80".parse()?);
/// let held = (0..3).map(|_| balancer.pick(&flow)).collect::<Result<Vec<_>, _>>()?;
/// assert_ne!(held[0].id(), held[2].id(), "the destination has two servers");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct ReplicatedLocalityLeastConnections {
    overhead: ConnectionOverhead,
    expiration: Duration,
}

impl ReplicatedLocalityLeastConnections {
    /// Creates the rule with the kernel's expiration and the classic overhead.
    pub const fn new() -> Self {
        Self { overhead: ConnectionOverhead::Classic, expiration: DEFAULT_EXPIRATION }
    }

    /// Sets how inactive connections count. Default: [`ConnectionOverhead::Classic`].
    pub const fn overhead(self, overhead: ConnectionOverhead) -> Self {
        Self { overhead, ..self }
    }

    /// Sets the time for which an unused destination is cached, and after which an unchanged set of
    /// servers loses one (`lblcr_expiration`). Default: 24 h.
    pub const fn expiration(self, expiration: Duration) -> Self {
        Self { expiration, ..self }
    }
}

impl Default for ReplicatedLocalityLeastConnections {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplicatedLocalityLeastConnections {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "lblcr",
        type_name: "ReplicatedLocalityLeastConnections",
        family: SchedulerFamily::Ipvs,
        summary: "Keeps each destination on a set of servers, which grows while they are overloaded",
        parameters: &[ConnectionOverhead::PARAMETER, EXPIRATION],
    };
}

impl Scheduler for ReplicatedLocalityLeastConnections {
    fn name(&self) -> &str {
        "lblcr"
    }

    fn reads_time(&self) -> bool {
        true
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let destinations = previous_as::<ReplicatedLocalityLeastConnectionsPicker>(previous)
            .map_or_else(
                || Arc::new(DestinationCache::new(self.expiration)),
                |old| Arc::clone(&old.destinations),
            );
        let fallback = LeastConnectionsPicker::new(self.overhead, members, Member::share);
        Ok(Box::new(ReplicatedLocalityLeastConnectionsPicker {
            rule: *self,
            destinations,
            fallback,
        }))
    }
}

#[derive(Debug)]
struct ReplicatedLocalityLeastConnectionsPicker {
    rule: ReplicatedLocalityLeastConnections,
    destinations: Arc<DestinationCache<DestinationServers>>,
    fallback: LeastConnectionsPicker,
}

/// The servers of one destination.
#[derive(Debug, Default)]
struct DestinationServers {
    /// The serials of the servers, the last added first.
    serials: Vec<u64>,
    changed_at: Option<Instant>,
}

impl Picker for ReplicatedLocalityLeastConnectionsPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let flow = cx.flow();
        let Some(to) = FlowDestination::from_flow(flow) else { return self.fallback.pick(cx) };
        self.destinations.with_entry(to, flow.time(), |servers| {
            let members = cx.members();
            let cached = servers.as_mut().and_then(|servers| {
                servers.serials.retain(|&serial| members.position_of_serial(serial).is_some());
                let least = self.least_loaded(servers, cx);
                self.remove_most_loaded(servers, cx);
                least.filter(|&i| !is_overloaded_for_locality(members, i))
            });
            cached.or_else(|| {
                let chosen = self.fallback.pick(cx)?;
                let serial = members[chosen].serial();
                let servers = servers.get_or_insert_with(DestinationServers::default);
                if !servers.serials.contains(&serial) {
                    servers.serials.insert(0, serial);
                    servers.changed_at = flow.time();
                }
                Some(chosen)
            })
        })
    }
}

impl ReplicatedLocalityLeastConnectionsPicker {
    fn least_loaded(&self, servers: &DestinationServers, cx: &PickContext<'_>) -> Option<usize> {
        let positions = servers.serials.iter().filter_map(|&s| cx.members().position_of_serial(s));
        // `min_by` keeps the first of equals, as the kernel's walk does.
        positions
            .filter(|&i| cx.is_usable(i))
            .min_by(|&a, &b| self.compare_overhead(cx.members(), a, b))
    }

    /// Removes the most loaded server from a set that has not changed for the expiration.
    fn remove_most_loaded(&self, servers: &mut DestinationServers, cx: &PickContext<'_>) {
        let (Some(now), Some(changed)) = (cx.flow().time(), servers.changed_at) else {
            return;
        };
        let unchanged = now.saturating_duration_since(changed);
        if servers.serials.len() < 2 || unchanged <= self.rule.expiration {
            return;
        }
        let members = cx.members();
        let positions = servers.serials.iter().filter_map(|&s| members.position_of_serial(s));
        // The first of equals; `max_by` alone would keep the last.
        let most = positions.filter(|&i| members[i].weight() != 0).reduce(|most, i| {
            if self.compare_overhead(members, most, i).is_lt() { i } else { most }
        });
        if let Some(most) = most {
            servers.serials.retain(|&serial| serial != members[most].serial());
            servers.changed_at = Some(now);
        }
    }

    /// Compares `overhead / weight`.
    fn compare_overhead(&self, members: &Members, a: usize, b: usize) -> std::cmp::Ordering {
        let [a, b] = [&members[a], &members[b]];
        let cost = |m: &Member| self.rule.overhead.cost(m.load());
        (cost(a) * u64::from(b.weight())).cmp(&(cost(b) * u64::from(a.weight())))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::backend::{BackendSet, Spec};
    use crate::{Balancer, Flow};

    #[test]
    fn an_unchanged_set_loses_its_most_loaded_server() {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let start = Instant::now();
        let set = BackendSet::new();
        let hour = Duration::from_secs(3600);
        let rule = ReplicatedLocalityLeastConnections::new().expiration(hour);
        let balancer = Balancer::new(&set, rule).expect("empty");
        for name in ["a", "b"] {
            set.insert(Spec::new(name, ())).expect("sound");
        }
        let flow = Flow::new().key(1).time(start);
        // "b" is first in the list; two more connections than its weight bring "a" in.
        let held: Vec<_> = (0..3).map(|_| balancer.pick(&flow).expect("two servers")).collect();
        assert_eq!(held.iter().map(|l| l.id().as_str()).collect::<String>(), "bba");

        // The pick that shrinks the set still selects the least loaded server of it.
        let late = flow.clone().time(start + 2 * hour);
        assert_eq!(balancer.pick(&late).expect("two servers").id().as_str(), "a");
        set.snapshot().backends()[0].set_load(0, 0);
        set.snapshot().backends()[1].set_load(1, 0);
        assert_eq!(
            balancer.pick(&late).expect("two servers").id().as_str(),
            "a",
            "\"b\" is idle, but no longer of this destination"
        );
        held.into_iter().for_each(|lease| drop(lease.detach()));
    }
}
