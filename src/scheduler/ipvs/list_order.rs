//! The order in which the hash rules of IPVS take the members.

use crate::backend::{Member, Members};
use crate::scheduler::parameter::{ParameterKind, SchedulerParameter};

/// The flag that makes the order independent of the list's.
pub(super) const SORTED: SchedulerParameter = SchedulerParameter::new(
    "sorted",
    ParameterKind::Flag,
    Some("off"),
    "Takes the servers in the order of their addresses and not of the list, so that several directors choose alike",
);

/// Returns the positions of the members: in the order of the list, as the kernel takes them, or in that of their
/// addresses, and of their names where these are the same.
pub(super) fn ordered_positions(members: &Members, is_sorted: bool) -> Vec<u32> {
    let mut positions: Vec<u32> = (0..members.len() as u32).collect();
    if is_sorted {
        let key = |member: &Member| (member.address(), member.id().clone());
        positions.sort_by_cached_key(|&position| members.get(position as usize).map(key));
    }
    positions
}
