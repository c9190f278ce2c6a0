//! The table by which the program decides flows of a service.

use crate::backend::Members;
use crate::packet::layout::{NO_SERVER, SERVICE_HASHES_PORT, SERVICE_IS_KEYED, table_rule};
use crate::scheduler::{LookupRule, LookupTable, Maglev};

/// The slots of a table that decides in place of a scheduler without one: shares are within 1 % for up to 40
/// servers. A prime number.
const FALLBACK_SIZE: usize = 4093;

/// A service's table: servers by slot, and how a flow finds its slot.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct ServiceTable {
    pub(super) slots: Vec<u32>,
    /// One of [`table_rule`].
    pub(super) rule: u32,
    pub(super) seed: u64,
    /// Bits of [`RawService::flags`](crate::packet::layout::RawService::flags).
    pub(super) flags: u32,
}

impl ServiceTable {
    /// Returns the table of a keyed scheduler, which the program asks first. `server` returns the number of the
    /// server at a position of the list.
    pub(super) fn keyed(table: &LookupTable, server: impl Fn(u16) -> Option<u32>) -> Self {
        let slot = |position: &Option<u16>| position.and_then(&server).unwrap_or(NO_SERVER);
        let (rule, seed, hash_port) = match table.rule {
            LookupRule::Mixed { seed } => (table_rule::MIXED, seed, false),
            LookupRule::IpvsMaglev { seed, hash_port } => {
                (table_rule::MAGLEV_OF_IPVS, seed, hash_port)
            }
            LookupRule::IpvsSource { hash_port } => (table_rule::SOURCE_OF_IPVS, 0, hash_port),
        };
        let flags = SERVICE_IS_KEYED | if hash_port { SERVICE_HASHES_PORT } else { 0 };
        Self { slots: table.slots.iter().map(slot).collect(), rule, seed, flags }
    }

    /// Returns the table that decides in place of a scheduler: all members in any state, so that a server that
    /// fails moves no flow of another.
    pub(super) fn fallback(members: &Members, server: impl Fn(u16) -> Option<u32>) -> Self {
        let Ok(rule) = Maglev::new().size(FALLBACK_SIZE) else { return Self::default() };
        let slots = rule.slots(members).into_iter();
        let slots = slots.map(|position| server(position).unwrap_or(NO_SERVER)).collect();
        // Clients behind one address are spread, too.
        Self { slots, flags: SERVICE_HASHES_PORT, ..Self::default() }
    }

    /// Returns the table by which one server gets all flows that the scheduler does not decide.
    pub(super) fn of_one(server: u32) -> Self {
        Self { slots: vec![server], ..Self::default() }
    }
}
