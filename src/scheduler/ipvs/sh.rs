//! Source hashing: `sh`.

use crate::backend::Members;
use crate::scheduler::hashing::hash_32;
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
};
use crate::scheduler::pick_context::Availability;
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `sh`: the client's address decides.
///
/// Choose it where decisions must equal those of Linux; [`mh`](crate::scheduler::MaglevHash) and
/// [`maglev`](crate::scheduler::Maglev) move far fewer clients when a server comes, goes or changes weight:
/// here every change deals all buckets anew.
///
/// Decides as the kernel's `ip_vs_sh`: 256 buckets dealt out in list order, `weight` of them at a
/// time (a quiesced server still gets one, and refuses its clients). A bucket whose server is
/// quiesced or at its limit refuses, unless [fallback](SourceHash::fallback) is on. A server that is
/// down, draining, disabled or was tried before, which the kernel does not know, is passed over by
/// the fallback's probing in either case.
///
/// Reads the flow's source, or its key where it has none, or else spreads at random.
///
/// # Cost
/// O(1), up to 256 probes when servers are passed over; a table of 1 KiB.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::SourceHash};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, SourceHash::new().fallback(true))?;
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// let client = |text: &str| text.parse::<std::net::SocketAddr>().map(Flow::from);
/// let one = balancer.pick(&client("192.0.2.7:1000")?)?;
/// let other = balancer.pick(&client("192.0.2.7:2000")?)?;
/// assert_eq!(one.id(), other.id(), "the port does not count");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct SourceHash {
    hash_port: bool,
    fallback: bool,
}

impl SourceHash {
    /// Without flags, as `ipvsadm -s sh`.
    pub const fn new() -> Self {
        Self { hash_port: false, fallback: false }
    }

    /// `sh-port`: the client's port counts, too. Default: `false`.
    pub const fn hash_port(self, port: bool) -> Self {
        Self { hash_port: port, ..self }
    }

    /// `sh-fallback`: probe on where a server is quiesced or at its limit. Default: `false`.
    pub const fn fallback(self, fallback: bool) -> Self {
        Self { fallback, ..self }
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
        parameters: &[HASH_PORT, FALLBACK],
    };
}

impl Scheduler for SourceHash {
    fn name(&self) -> &str {
        "sh"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let turn = members
            .iter()
            .enumerate()
            .flat_map(|(i, member)| std::iter::repeat_n(i as u32, member.weight().max(1) as usize));
        let buckets = turn.cycle().take(1 << TABLE_BITS).collect();
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
}

impl SourceHashPicker {
    /// The position in the bucket of a hash.
    #[inline]
    fn bucket_owner(&self, hash: u32) -> Option<usize> {
        self.buckets.get((hash & TABLE_MASK) as usize).map(|&i| i as usize)
    }

    /// Where the one at home is not usable.
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
