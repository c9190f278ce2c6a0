//! What the tables of the hash schedulers have in common.

use super::PickContext;
use crate::backend::Members;

/// The weights and names a table was built from: while these stand, so does the table.
///
/// States, shares and limits are not among them, so a health flap or quiescing finds the old table
/// good and costs nothing but this comparison.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct TableKey(Box<[(u64, u32)]>);

impl TableKey {
    pub(super) fn from_members(members: &Members) -> Self {
        Self(members.iter().map(|m| (m.serial(), m.table_weight())).collect())
    }
}

/// Tells whether it makes sense to probe on at all. A look at every member is short beside a walk
/// round a whole table in vain.
pub(super) fn is_any_usable(cx: &PickContext<'_>) -> bool {
    (0..cx.members().len()).any(|i| cx.is_usable(i))
}

#[cfg(all(test, not(lvs_loom)))]
pub(super) mod testing {
    use crate::{BackendSet, Spec};

    /// The name of the `i`-th of a test's backends.
    pub(in crate::scheduler) fn backend_name(i: usize) -> String {
        format!("10.1.{}.{}:80", i / 250, i % 250)
    }

    /// A set of backends of these weights, [`backend_name`] in their order; the list is newest first.
    pub(in crate::scheduler) fn set_with_weights(weights: &[u32]) -> BackendSet<()> {
        let set = BackendSet::new();
        set.edit(|edit| {
            weights.iter().enumerate().try_for_each(|(i, &weight)| {
                edit.insert(Spec::new(backend_name(i), ()).weight(weight)).map(drop)
            })
        })
        .expect("names differ");
        set
    }
}
