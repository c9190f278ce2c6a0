//! The table of a keyed rule, for engines that look flows up where no Rust runs.

use super::hashing::{mix_bits, scale_to_range};

/// The table of a keyed rule: what an engine in the kernel reads in place of the
/// [picker](crate::scheduler::Picker), with the same result.
///
/// A flow has a slot by its client's address, and a slot has a member, by position in the list that the picker
/// was compiled from. Where the member of the slot cannot be chosen, the rule says which slot is next.
///
/// # Examples
/// The picker of a rule of your own that has a table:
/// ```
/// use std::net::SocketAddr;
/// use lvs::backend::Members;
/// use lvs::scheduler::{LookupTable, PickContext, Picker};
///
/// #[derive(Debug)]
/// struct TablePicker {
///     slots: Vec<u16>,
/// }
///
/// impl Picker for TablePicker {
///     fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
///         let slot = LookupTable::mixed_slot(cx.key(), 0, self.slots.len());
///         let position = usize::from(*self.slots.get(slot)?);
///         cx.is_usable(position).then_some(position)
///     }
///
///     fn lookup_table(&self, members: &Members, _destination: SocketAddr) -> Option<LookupTable> {
///         // Where the pick refuses a flow, the slot has no member.
///         let is_eligible = |position: usize| members[position].share() > 0;
///         let slots = self.slots.iter().map(|slot| Some(*slot).filter(|&it| is_eligible(it.into())));
///         Some(LookupTable::mixed(0, slots.collect()))
///     }
/// }
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct LookupTable {
    pub(crate) rule: LookupRule,
    pub(crate) slots: Vec<Option<u16>>,
}

/// How a flow finds its slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LookupRule {
    /// The [key](crate::scheduler::FlowView::key), mixed with the seed and scaled to the slots. Where the member
    /// cannot be chosen, the hash is mixed again.
    Mixed {
        /// The mixed seed of the rule.
        seed: u64,
    },
    /// [`mh`](crate::scheduler::IpvsMaglevHash).
    IpvsMaglev {
        /// The key of the hash.
        seed: u64,
        /// Whether the client's port is hashed, too.
        hash_port: bool,
    },
    /// [`sh`](crate::scheduler::SourceHash): each of 256 slots has the member that is chosen in the end.
    IpvsSource {
        /// Whether the client's port is hashed, too.
        hash_port: bool,
    },
}

impl LookupTable {
    /// Creates the table of a rule that finds the slot by [`LookupTable::mixed_slot`]. A slot without a member
    /// is one whose flows the rule refuses, or chooses a member for in another way: an engine asks the picker
    /// for these.
    ///
    /// If the member of a slot cannot be chosen, the engine mixes the hash again, up to 16 times, as
    /// [`Maglev`](crate::scheduler::Maglev) does; a rule that does something else gives the slots of such
    /// members no member.
    pub const fn mixed(seed: u64, slots: Vec<Option<u16>>) -> Self {
        Self { rule: LookupRule::Mixed { seed }, slots }
    }

    /// Returns the slot of a key in a table of `slots` slots.
    #[must_use]
    pub const fn mixed_slot(key: u64, seed: u64, slots: usize) -> usize {
        scale_to_range(mix_bits(key ^ seed), slots)
    }
}
