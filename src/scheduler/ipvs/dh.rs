//! Destination hashing: `dh`.

use std::net::SocketAddr;

use crate::backend::Members;
use crate::scheduler::hashing::{hash_32, scale_to_range};
use crate::scheduler::ipvs::list_order::{SORTED, ordered_positions};
use crate::scheduler::parameter::{SchedulerFamily, SchedulerInfo};
use crate::scheduler::pick_context::Availability;
use crate::scheduler::{CompileError, Flow, LookupTable, PickContext, Picker, Rng, Scheduler};

/// `dh`: selects a member by a hash of the destination address.
///
/// Choose it in front of caches that serve many destinations (the original use: transparent web
/// caches), where decisions must equal those of Linux;
/// [`rendezvous`](crate::scheduler::RendezvousHash) or [`maglev`](crate::scheduler::Maglev) move
/// far fewer keys when a server is added or removed.
///
/// Decides as the kernel's `ip_vs_dh`: 256 buckets assigned in list order, weights ignored; a
/// bucket whose server is quiesced or at its limit refuses the connection. A server that is down,
/// draining, disabled or was tried before, which the kernel does not know, is skipped: the next
/// buckets are probed.
///
/// Reads the flow's destination or, without a destination, its key; without both it selects at
/// random.
///
/// # Cost
/// O(1); a table of 1 KiB.
///
/// # Examples
/// ```
/// # use lvs::{BackendSet, Balancer, Flow, Spec, scheduler::DestinationHash};
/// let set = BackendSet::new();
/// let balancer = Balancer::new(&set, DestinationHash::new())?;
/// set.insert(Spec::new("a", ()))?;
/// set.insert(Spec::new("b", ()))?;
/// let flow = Flow::new().destination("198.51.100.1:80".parse()?);
/// assert_eq!(balancer.pick(&flow)?.id(), balancer.pick(&flow)?.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct DestinationHash {
    is_sorted: bool,
}

/// `DH_TAB_BITS` of the kernel's default configuration.
const TABLE_BITS: u32 = 8;

impl DestinationHash {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "dh",
        type_name: "DestinationHash",
        family: SchedulerFamily::Ipvs,
        summary: "Selects by a hash of the destination address",
        parameters: &[SORTED],
    };

    /// Creates the rule as `ipvsadm -s dh`.
    pub const fn new() -> Self {
        Self { is_sorted: false }
    }

    /// Sets `sorted`: take the members in the order of their addresses, and not in that of the list, which the kernel
    /// does. Several directors whose lists are ordered differently then choose the same member. Default: `false`.
    pub const fn sorted(self, sorted: bool) -> Self {
        Self { is_sorted: sorted }
    }
}

impl Scheduler for DestinationHash {
    fn name(&self) -> &str {
        "dh"
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
        Ok(Box::new(DestinationHashPicker(
            positions.into_iter().cycle().take(1 << TABLE_BITS).collect(),
        )))
    }
}

#[derive(Debug)]
struct DestinationHashPicker(Box<[u32]>);

impl Picker for DestinationHashPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let home = match cx.flow().folded_destination() {
            Some(destination) => hash_32(destination, TABLE_BITS) as usize,
            None => scale_to_range(cx.rng().next_u64(), self.0.len()),
        };
        let (before, from) = self.0.split_at_checked(home)?;
        for &i in from.iter().chain(before) {
            match cx.availability(i as usize) {
                Availability::Usable => return Some(i as usize),
                Availability::Refusing => return None,
                Availability::PassedOver => {}
            }
        }
        None
    }

    fn lookup_table(&self, members: &Members, destination: SocketAddr) -> Option<LookupTable> {
        let (flow, mut rng) = (Flow::new().destination(destination), Rng::with_seed(0));
        let choice = self.pick(&mut PickContext::new(members, &flow, &mut rng));
        Some(LookupTable::mixed(0, vec![choice.and_then(|choice| choice.try_into().ok())]))
    }
}
