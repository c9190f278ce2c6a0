//! Caches one number for each group of members until a load in the group changes.
//!
//! For rules that need a value over all members with each pick: the least loaded member of a group,
//! the sum of its connections. A pick reads a version and a cached word of each group (about
//! sqrt(n) groups), and the members only of those groups whose version has changed.
//!
//! # Orderings
//! Those of `LoadVersions`: the version is read before the members are, so a cached number may be
//! newer than its version but never older. The word needs no ordering of its own, because version
//! and value are read and written together. Threads that compute at the same time overwrite each
//! other's word; an older word that is written last has an old version and is computed again.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::{Members, SetContext};
use crate::sync::{AtomicU64, Ordering};

/// One cached number for each run of neighbouring members that share a version.
#[derive(Debug)]
pub(in crate::scheduler) struct GroupCache {
    /// `None` for an empty list, which has no groups.
    shared: Option<Arc<SetContext>>,
    /// `version << 32 | value` for each run.
    entries: Box<[AtomicU64]>,
    /// The index of each run's version in `LoadVersions`.
    group_ids: Box<[u8]>,
    ranges: Box<[Range<u32>]>,
}

/// The word of a run without a cached value. A value and version that happen to make up this word
/// are computed with each pick, which is slow but correct.
const EMPTY_ENTRY: u64 = u64::MAX;

impl GroupCache {
    /// Creates an empty cache and starts the tracking of load versions in the set.
    ///
    /// A cache is valid for the list that it was made from only: each compile makes a new cache.
    pub(in crate::scheduler) fn new(members: &Members) -> Self {
        let shared = members.context().cloned();
        if let Some(shared) = &shared {
            shared.load_versions.start_tracking();
        }
        let runs = members.load_group_ranges();
        Self {
            shared,
            entries: runs.iter().map(|_| AtomicU64::new(EMPTY_ENTRY)).collect(),
            // Both casts keep the value: there are at most 256 groups and 65 536 members.
            group_ids: runs.iter().map(|&(group, _)| group as u8).collect(),
            ranges: runs.iter().map(|(_, r)| r.start as u32..r.end as u32).collect(),
        }
    }

    /// Returns the number of runs.
    #[inline]
    pub(in crate::scheduler) fn group_count(&self) -> usize {
        self.entries.len()
    }

    /// Returns the value of a run: the cached value or, if a load in the run may have changed, the
    /// result of `compute`.
    ///
    /// `compute` must use the members in its range only, and of these only their load and the
    /// fields that are fixed in the list.
    #[inline]
    pub(in crate::scheduler) fn value_or_compute(
        &self,
        run: usize,
        compute: impl FnOnce(Range<usize>) -> u32,
    ) -> u32 {
        let Some(shared) = &self.shared else { return 0 };
        let version = shared.load_versions.version(usize::from(self.group_ids[run]));
        // Relaxed here and below: see the head of the file.
        let word = self.entries[run].load(Ordering::Relaxed);
        if (word >> 32) as u32 == version && word != EMPTY_ENTRY {
            return word as u32;
        }
        let range = &self.ranges[run];
        let value = compute(range.start as usize..range.end as usize);
        let word = u64::from(version) << 32 | u64::from(value);
        self.entries[run].store(word, Ordering::Relaxed);
        value
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{BackendSet, Spec};

    fn sum(members: &Members, range: Range<usize>) -> u32 {
        range.map(|i| members[i].load().total()).sum()
    }

    #[test]
    fn only_a_group_whose_load_changed_is_computed_again() {
        let set = BackendSet::new();
        set.edit(|edit| {
            (0..100).try_for_each(|i| edit.insert(Spec::new(i.to_string(), ())).map(drop))
        })
        .expect("sound");
        let snapshot = set.snapshot();
        let members = snapshot.members();
        let cache = GroupCache::new(members);
        assert_eq!(cache.group_count(), 100usize.div_ceil(16));
        let computed = Cell::new(0);
        let total = || {
            computed.set(0);
            (0..cache.group_count())
                .map(|run| {
                    cache.value_or_compute(run, |range| {
                        computed.set(computed.get() + 1);
                        sum(members, range)
                    })
                })
                .sum::<u32>()
        };
        assert_eq!((total(), computed.get()), (0, 7), "nothing is cached at first");
        assert_eq!((total(), computed.get()), (0, 0), "then every group is cached");
        for i in [17, 18] {
            assert_eq!(members[i].account().bind(0, false), Some(0));
        }
        assert_eq!((total(), computed.get()), (2, 1));
        snapshot.backends()[99].set_load(5, 0);
        assert_eq!((total(), computed.get()), (7, 1));
        members[17].account().unbind(0, true, crate::Outcome::Ok);
        assert_eq!((total(), computed.get()), (6, 1));
        assert_eq!((total(), computed.get()), (6, 0));
    }

    #[test]
    fn the_runs_cover_the_list_once() {
        let set = BackendSet::new();
        for i in 0..50 {
            set.insert(Spec::new(i.to_string(), ())).expect("sound");
        }
        let snapshot = set.snapshot();
        let cache = GroupCache::new(snapshot.members());
        let mut covered = Vec::new();
        for run in 0..cache.group_count() {
            cache.value_or_compute(run, |range| {
                covered.extend(range);
                0
            });
        }
        assert_eq!(covered, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_list_has_no_groups() {
        assert_eq!(GroupCache::new(&Members::default()).group_count(), 0);
    }
}
