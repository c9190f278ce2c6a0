//! The kernel's Maglev hashing: `mh`.

use std::net::SocketAddr;

use crate::backend::{BackendState, Member, Members};
use crate::scheduler::arithmetic::greatest_common_divisor;
use crate::scheduler::hashing::{fold_ip, hash_bytes, hsiphash};
use crate::scheduler::ipvs::list_order::{SORTED, ordered_positions};
use crate::scheduler::lookup_table::LookupRule;
use crate::scheduler::parameter::{
    ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
};
use crate::scheduler::pick_context::Availability;
use crate::scheduler::{CompileError, LookupTable, PickContext, Picker, Scheduler};

/// `mh`: selects a member by Maglev hashing of the client's address, slot for slot as Linux does.
///
/// Choose it where this director works beside kernels that run `mh`; otherwise
/// [`maglev`](crate::scheduler::Maglev) has a larger table, exact weights and a configurable seed
/// (the kernel's keys are published, so that a client can choose its server).
///
/// Decides as the kernel's `ip_vs_mh` on a 64-bit machine (Eisenbud et al., NSDI 2016, with weights
/// as turns): 4093 slots, SipHash-1-3. The table is built from the last weights that were not 0, so
/// that quiescing moves no other client. A slot whose server is quiesced or at its limit refuses,
/// unless [fallback](IpvsMaglevHash::fallback) is on. A server that is down, draining, disabled or
/// was tried before, which the kernel does not know, is skipped by the fallback's probing in either
/// case.
///
/// Reads the flow's source or, without a source, its key; without both it selects at random. A
/// member is placed by its address or, without an address, by its name.
///
/// # Cost
/// One SipHash (about 5 ns); up to 4093 probes if servers are skipped. A table of 8 KiB,
/// built in some 100 µs. At most 4093 members.
///
/// # Examples
/// ```
/// # use std::net::SocketAddr;
/// # use lvs::{BackendSet, Balancer, Flow, scheduler::IpvsMaglevHash};
/// let set = BackendSet::<SocketAddr>::new();
/// let balancer = Balancer::new(&set, IpvsMaglevHash::new().hash_port(true))?;
/// set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
/// set.insert("10.0.0.2:80".parse::<SocketAddr>()?)?;
/// let flow = Flow::from("192.0.2.7:1000".parse::<SocketAddr>()?);
/// assert_eq!(balancer.pick(&flow)?.id(), balancer.pick(&flow)?.id());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct IpvsMaglevHash {
    hash_port: bool,
    fallback: bool,
    is_sorted: bool,
}

impl IpvsMaglevHash {
    /// Creates the rule without flags, as `ipvsadm -s mh`.
    pub const fn new() -> Self {
        Self { hash_port: false, fallback: false, is_sorted: false }
    }

    /// Sets `mh-port`: hash the client's port, too. Default: `false`.
    pub const fn hash_port(self, port: bool) -> Self {
        Self { hash_port: port, ..self }
    }

    /// Sets `mh-fallback`: probe further if a server is quiesced or at its limit. Default: `false`.
    pub const fn fallback(self, fallback: bool) -> Self {
        Self { fallback, ..self }
    }

    /// Sets `sorted`: take the members in the order of their addresses, and not in that of the list, which the kernel
    /// does. Several directors whose lists are ordered differently then choose the same member. Default: `false`.
    pub const fn sorted(self, sorted: bool) -> Self {
        Self { is_sorted: sorted, ..self }
    }
}

/// The prime of `CONFIG_IP_VS_MH_TAB_INDEX` 12, the kernel's default.
const SLOT_COUNT: u32 = 4093;
/// Half the index; weights are reduced to this number of bits.
const MAX_TURN_BITS: u32 = 6;
const SLOT_HASH_KEY: u64 = 2_654_435_761;
const SKIP_HASH_KEY: u64 = 2_654_446_892;
const EMPTY_SLOT: u16 = u16::MAX;

const HASH_PORT: SchedulerParameter = SchedulerParameter::new(
    "mh-port",
    ParameterKind::Flag,
    Some("off"),
    "Hashes the client's port, too",
);
const FALLBACK: SchedulerParameter = SchedulerParameter::new(
    "mh-fallback",
    ParameterKind::Flag,
    Some("off"),
    "Probes further where a server has weight 0 or is at its connection limit",
);

impl IpvsMaglevHash {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "mh",
        type_name: "IpvsMaglevHash",
        family: SchedulerFamily::Ipvs,
        summary: "Selects by the kernel's Maglev table and a hash of the client's address",
        parameters: &[HASH_PORT, FALLBACK, SORTED],
    };
}

impl Scheduler for IpvsMaglevHash {
    fn name(&self) -> &str {
        "mh"
    }

    fn depends_on_order(&self) -> bool {
        !self.is_sorted
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        if members.len() > SLOT_COUNT as usize {
            let max = SLOT_COUNT as usize;
            return Err(CompileError::TooManyMembers { members: members.len(), max });
        }
        let slots = populate_slots(members, &ordered_positions(members, self.is_sorted));
        Ok(Box::new(IpvsMaglevHashPicker { flags: *self, slots }))
    }
}

#[derive(Debug)]
struct IpvsMaglevHashPicker {
    flags: IpvsMaglevHash,
    /// The owner of each slot, by position; `EMPTY_SLOT` in all slots if no member ever had a
    /// weight.
    slots: Box<[u16]>,
}

impl Picker for IpvsMaglevHashPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let flow = cx.flow();
        let port =
            if self.flags.hash_port { flow.source().map_or(0, |source| source.port()) } else { 0 };
        let address = flow.folded_source().unwrap_or_else(|| cx.rng().next_u64() as u32);
        let value = address.wrapping_add(u32::from(port));
        let home = self.slot_owner(value)?;
        if cx.is_usable(home) { Some(home) } else { self.probe_fallback(value, home, cx) }
    }

    fn lookup_table(&self, members: &Members, _destination: SocketAddr) -> Option<LookupTable> {
        let refuses =
            |owner: usize| !self.flags.fallback && members[owner].state() == BackendState::Quiesced;
        let is_owner = |owner: &u16| *owner != EMPTY_SLOT && !refuses(usize::from(*owner));
        let slots = self.slots.iter().map(|owner| Some(*owner).filter(is_owner)).collect();
        let hash_port = self.flags.hash_port;
        Some(LookupTable { rule: LookupRule::IpvsMaglev { seed: SLOT_HASH_KEY, hash_port }, slots })
    }
}

impl IpvsMaglevHashPicker {
    /// Returns the owner of the slot of a value.
    #[inline]
    fn slot_owner(&self, value: u32) -> Option<usize> {
        let slot = hsiphash(value, SLOT_HASH_KEY) % SLOT_COUNT;
        self.slots.get(slot as usize).filter(|&&i| i != EMPTY_SLOT).map(|&i| i as usize)
    }

    /// Selects another member if the owner of the home slot is not usable.
    #[cold]
    fn probe_fallback(&self, value: u32, home: usize, cx: &PickContext<'_>) -> Option<usize> {
        if !self.flags.fallback && cx.availability(home) == Availability::Refusing {
            return None;
        }
        let start = hsiphash(value, SLOT_HASH_KEY) % SLOT_COUNT;
        let offsets = (0..SLOT_COUNT).map(|step| (start + step) % SLOT_COUNT);
        offsets
            .filter_map(|offset| self.slot_owner(value.wrapping_add(offset)))
            .find(|&i| cx.is_usable(i))
    }
}

/// Assigns the slots: in turn by the order of positions, each member gets the next free slots of its permutation.
fn populate_slots(members: &Members, positions: &[u32]) -> Box<[u16]> {
    let mut slots = vec![EMPTY_SLOT; SLOT_COUNT as usize].into_boxed_slice();
    let mut order: Vec<SlotPermutation> = slot_permutations(members, positions);
    order.retain(|permutation| permutation.turns > 0);
    if order.is_empty() {
        return slots;
    }
    let mut free = SLOT_COUNT;
    loop {
        for permutation in &mut order {
            for _ in 0..permutation.turns {
                while slots[permutation.next_slot as usize] != EMPTY_SLOT {
                    permutation.next_slot = (permutation.next_slot + permutation.skip) % SLOT_COUNT;
                }
                slots[permutation.next_slot as usize] = permutation.position;
                free -= 1;
                if free == 0 {
                    return slots;
                }
            }
        }
    }
}

/// The order in which a member claims slots.
#[derive(Debug)]
struct SlotPermutation {
    position: u16,
    next_slot: u32,
    skip: u32,
    turns: u32,
}

fn slot_permutations(members: &Members, positions: &[u32]) -> Vec<SlotPermutation> {
    let weights = || members.iter().map(Member::table_weight);
    let unit = greatest_common_divisor(weights()).max(1);
    let max = weights().max().unwrap_or(0) / unit;
    let shift = (u32::BITS - max.leading_zeros()).saturating_sub(MAX_TURN_BITS);
    let permutation = |&i: &u32| {
        let member = &members[i as usize];
        let (address, port) = placement_hash_input(member);
        let value = address.wrapping_add(u32::from(port));
        let weight = member.table_weight();
        SlotPermutation {
            // At most 4093 members.
            position: i as u16,
            next_slot: hsiphash(value, SLOT_HASH_KEY) % SLOT_COUNT,
            skip: hsiphash(value, SKIP_HASH_KEY) % (SLOT_COUNT - 1) + 1,
            turns: ((weight / unit) >> shift).max(u32::from(weight != 0)),
        }
    };
    positions.iter().map(permutation).collect()
}

fn placement_hash_input(member: &Member) -> (u32, u16) {
    match member.address() {
        Some(address) => (fold_ip(address.ip()), address.port()),
        None => (hash_bytes(member.id().as_str().as_bytes(), 0) as u32, 0),
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::BackendSet;
    use crate::backend::Spec;

    fn table(weights: [u32; 3]) -> Box<[u16]> {
        let set = BackendSet::<SocketAddr>::new();
        for (host, weight) in (1..).zip(weights) {
            let address = SocketAddr::from(([10, 0, 0, host], 80));
            set.insert(Spec::from(address).weight(weight)).expect("a sound backend");
        }
        let snapshot = set.snapshot();
        populate_slots(snapshot.members(), &ordered_positions(snapshot.members(), false))
    }

    fn counts(slots: &[u16]) -> [usize; 3] {
        [0, 1, 2].map(|member| slots.iter().filter(|&&slot| slot == member).count())
    }

    #[test]
    fn equal_weights_give_the_published_table() {
        let slots = table([1, 1, 1]);
        let start = [2, 1, 1, 0, 0, 2, 1, 0, 0, 2, 2, 1, 1, 2, 2, 0, 1, 1, 2, 2, 0, 1, 0, 0];
        assert_eq!(slots[..24], start);
        assert_eq!(counts(&slots), [1365, 1364, 1364]);
    }

    #[test]
    fn unequal_weights_give_the_published_checksum() {
        // The list is newest first: 10.0.0.3 has weight 10.
        let slots = table([30, 20, 10]);
        assert_eq!(counts(&slots), [683, 1364, 2046]);
        let bytes: Vec<u8> = slots.iter().map(|&slot| slot as u8).collect();
        assert_eq!(crc32(&bytes), 0x5975_57e3);
    }

    #[test]
    fn a_member_that_never_had_a_weight_has_no_slot() {
        assert_eq!(counts(&table([1, 0, 1])), [2047, 0, 2046]);
        assert!(table([0, 0, 0]).iter().all(|&slot| slot == EMPTY_SLOT));
    }

    #[test]
    fn extreme_weights_are_reduced_to_six_bits_of_turns() {
        let slots = table([65_535, 1, 1]);
        let [a, b, heavy] = counts(&slots);
        assert_eq!([a, b], [4093 / 65 + 1; 2], "63 turns against 1 and 1");
        assert_eq!(a + b + heavy, 4093);
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1))
            })
        })
    }
}
