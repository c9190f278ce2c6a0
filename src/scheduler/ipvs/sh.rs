//! Source hashing: `sh`.

use std::net::SocketAddr;

use crate::backend::{Member, Members};
use crate::scheduler::hashing::hash_32;
use crate::scheduler::ipvs::list_order::{SORTED, ordered_positions};
use crate::scheduler::lookup_table::LookupRule;
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
};
use crate::scheduler::pick_context::Availability;
use crate::scheduler::{CompileError, Flow, LookupTable, PickContext, Picker, Rng, Scheduler};

/// `sh`: selects a member by a hash of the client's address.
///
/// Choose it where decisions must equal those of Linux; [`mh`](crate::scheduler::IpvsMaglevHash)
/// and [`maglev`](crate::scheduler::Maglev) move far fewer clients when a server is added, removed
/// or changes weight: here every change assigns all buckets anew.
///
/// Decides as the kernel's `ip_vs_sh`: 256 buckets assigned in list order, `weight` of them at a
/// time (a quiesced server still gets one bucket, and refuses its clients). A bucket whose server
/// is quiesced or at its limit refuses the connection, unless [fallback](SourceHash::fallback) is
/// on. A server that is down, draining, disabled or was tried before, which the kernel does not
/// know, is skipped by the fallback's probing in either case.
///
/// Reads the flow's source or, without a source, its key; without both it selects at random.
///
/// # Cost
/// O(1), up to 256 probes if servers are skipped; a table of 1 KiB.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::SourceHash};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, SourceHash::new().fallback(true))?;
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// let client = |text: &str| text.parse::<std::net::SocketAddr>().map(Flow::from);
/// let first = balancer.pick(&client("192.0.2.7:1000")?)?;
/// let second = balancer.pick(&client("192.0.2.7:2000")?)?;
/// assert_eq!(first.id(), second.id(), "the port is not hashed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SourceHash {
    hash_port: bool,
    fallback: bool,
    is_sorted: bool,
}

impl SourceHash {
    /// Creates the rule without flags, as `ipvsadm -s sh`.
    pub const fn new() -> Self {
        Self { hash_port: false, fallback: false, is_sorted: false }
    }

    /// Sets `sh-port`: hash the client's port, too. Default: `false`.
    pub const fn hash_port(self, port: bool) -> Self {
        Self { hash_port: port, ..self }
    }

    /// Sets `sh-fallback`: probe further if a server is quiesced or at its limit. Default: `false`.
    pub const fn fallback(self, fallback: bool) -> Self {
        Self { fallback, ..self }
    }

    /// Sets `sorted`: take the members in the order of their addresses, and not in that of the list, which the kernel
    /// does. Several directors whose lists are ordered differently then choose the same member. Default: `false`.
    pub const fn sorted(self, sorted: bool) -> Self {
        Self { is_sorted: sorted, ..self }
    }
}

/// `SH_TAB_BITS` of the kernel's default configuration.
const TABLE_BITS: u32 = 8;
const TABLE_MASK: u32 = (1 << TABLE_BITS) - 1;

const HASH_PORT: SchedulerParameter = SchedulerParameter::new(
    "sh-port",
    ParameterKind::Flag,
    Some("off"),
    "Hashes the client's port, too",
);
const FALLBACK: SchedulerParameter = SchedulerParameter::new(
    "sh-fallback",
    ParameterKind::Flag,
    Some("off"),
    "Probes further where a server has weight 0 or is at its connection limit",
);

impl SourceHash {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "sh",
        type_name: "SourceHash",
        family: SchedulerFamily::Ipvs,
        summary: "Selects by a hash of the client's address",
        parameters: &[HASH_PORT, FALLBACK, SORTED],
    };
}

impl Scheduler for SourceHash {
    fn name(&self) -> &str {
        "sh"
    }

    fn depends_on_order(&self) -> bool {
        !self.is_sorted
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let positions = ordered_positions(members, self.is_sorted);
        let round = positions.iter().flat_map(|&i| {
            let weight = members.get(i as usize).map_or(1, Member::weight);
            std::iter::repeat_n(i, weight.max(1) as usize)
        });
        let buckets = round.cycle().take(1 << TABLE_BITS).collect();
        Ok(Box::new(SourceHashPicker { flags: *self, buckets }))
    }
}

#[derive(Debug)]
struct SourceHashPicker {
    flags: SourceHash,
    buckets: Box<[u32]>,
}

impl Picker for SourceHashPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let flow = cx.flow();
        let port =
            if self.flags.hash_port { flow.source().map_or(0, |source| source.port()) } else { 0 };
        let address = flow.folded_source().unwrap_or_else(|| cx.rng().next_u64() as u32);
        let hash = hash_32(address.wrapping_add(u32::from(port)), TABLE_BITS);
        let home = self.bucket_owner(hash)?;
        if cx.is_usable(home) { Some(home) } else { self.probe_fallback(hash, home, cx) }
    }

    fn lookup_table(&self, members: &Members, _destination: SocketAddr) -> Option<LookupTable> {
        let (flow, mut rng) = (Flow::new(), Rng::with_seed(0));
        let cx = PickContext::new(members, &flow, &mut rng);
        // Where the search goes on from a bucket depends on the bucket alone.
        let choice = |bucket| {
            let home = self.bucket_owner(bucket)?;
            if cx.is_usable(home) { Some(home) } else { self.probe_fallback(bucket, home, &cx) }
        };
        let slots = (0..=TABLE_MASK).map(|bucket| choice(bucket)?.try_into().ok()).collect();
        let rule = LookupRule::IpvsSource { hash_port: self.flags.hash_port };
        Some(LookupTable { rule, slots })
    }
}

impl SourceHashPicker {
    /// Returns the owner of the bucket of a hash.
    #[inline]
    fn bucket_owner(&self, hash: u32) -> Option<usize> {
        self.buckets.get((hash & TABLE_MASK) as usize).map(|&i| i as usize)
    }

    /// Selects another member if the owner of the home bucket is not usable.
    #[cold]
    fn probe_fallback(&self, hash: u32, home: usize, cx: &PickContext<'_>) -> Option<usize> {
        if !self.flags.fallback && cx.availability(home) == Availability::Refusing {
            return None;
        }
        // The kernel starts its probing at twice the hash.
        let start = hash.wrapping_mul(2);
        let offsets = 0..=TABLE_MASK;
        offsets
            .filter_map(|offset| self.bucket_owner(start.wrapping_add(offset)))
            .find(|&i| cx.is_usable(i))
    }
}
