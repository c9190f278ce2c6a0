//! The part that the tables of the hash schedulers share.

use crate::backend::Members;
use crate::scheduler::PickContext;

/// The members and weights from which a table was built; while they are equal the table is reused.
///
/// States, shares and limits are left out, so that a change of health or quiescing a backend costs
/// only this comparison.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::scheduler) struct TableKey(Box<[(u64, u32)]>);

impl TableKey {
    pub(in crate::scheduler) fn from_members(members: &Members) -> Self {
        Self(members.iter().map(|m| (m.serial(), m.table_weight())).collect())
    }
}

/// Returns whether any member is usable: a check of all members is short compared to a vain walk
/// over the whole table.
pub(in crate::scheduler) fn is_any_usable(cx: &PickContext<'_>) -> bool {
    (0..cx.members().len()).any(|i| cx.is_usable(i))
}
