//! What the tables of the hash schedulers have in common.

use crate::backend::Members;
use crate::scheduler::PickContext;

/// The weights and names a table was built from: while these stand, so does the table.
///
/// States, shares and limits are not among them, so a health flap or quiescing finds the old table
/// good and costs nothing but this comparison.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::scheduler) struct TableKey(Box<[(u64, u32)]>);

impl TableKey {
    pub(in crate::scheduler) fn from_members(members: &Members) -> Self {
        Self(members.iter().map(|m| (m.serial(), m.table_weight())).collect())
    }
}

/// Tells whether it makes sense to probe on at all. A look at every member is short beside a walk
/// round a whole table in vain.
pub(in crate::scheduler) fn is_any_usable(cx: &PickContext<'_>) -> bool {
    (0..cx.members().len()).any(|i| cx.is_usable(i))
}
