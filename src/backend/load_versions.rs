//! Version numbers that say which members of a set changed load, so that a least-loaded pick need not
//! read every member.
//!
//! The members of a set form groups of neighbours, about as many groups as each has members. After
//! every change of a member's load the version of its group is incremented. A picker caches what it
//! found in a group (the least loaded member, the sum) with the version that it read first, and uses
//! the cache while the version is the same: with 1000 members it reads 32 versions and the members of
//! the one or two groups that changed.
//!
//! Versions are not counted until a picker asks for it ([`LoadVersions::start_tracking`]): with other
//! schedulers a lease only reads a flag that never changes.
//!
//! # Orderings
//! Two orders matter, and `SeqCst` on both sides gives them:
//!
//! - *Start of tracking, and a move of a member to another group.* A lease changes the load word, then
//!   reads the flag and the group number. The writer changes the flag or the number, then publishes
//!   the plane whose picker starts with an empty cache. If the lease still read the old value, its
//!   change of the load word came before the writer's change in the single order of `SeqCst`, so the
//!   picker's first read sees it; otherwise the lease increments the right version.
//! - *In service.* A picker reads the version before the members, and a lease increments it after the
//!   load: a cache entry is never newer than its version, only older, and then the version differs.

use std::ops::Range;

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// The most groups of a set.
pub(crate) const MAX_LOAD_GROUPS: usize = 256;
/// The smallest group. Smaller ones would cost more reads of versions than they save reads of members.
const MIN_LOAD_GROUP_SIZE: usize = 16;

/// The versions of the groups of one set.
#[derive(Debug)]
pub(crate) struct LoadVersions {
    is_tracking: AtomicBool,
    versions: [AtomicU32; MAX_LOAD_GROUPS],
}

impl LoadVersions {
    pub(super) fn new() -> Self {
        Self {
            is_tracking: AtomicBool::new(false),
            versions: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Starts to count changes, for the rest of the set's life.
    pub(crate) fn start_tracking(&self) {
        self.is_tracking.store(true, Ordering::SeqCst);
    }

    /// Returns the version of a group; to be read before the members.
    #[inline]
    pub(crate) fn version(&self, group: usize) -> u32 {
        self.versions[group].load(Ordering::SeqCst)
    }

    /// Records a change of load in the group whose number `group` holds.
    #[inline]
    pub(super) fn mark_changed(&self, group: &AtomicU32) {
        if self.is_tracking.load(Ordering::SeqCst) {
            let group = group.load(Ordering::SeqCst) as usize % MAX_LOAD_GROUPS;
            self.versions[group].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Returns how many members share a group in a set of `len`: about the square root, so that a pick
/// reads as many versions as members.
pub(super) fn load_group_size(len: usize) -> usize {
    len.isqrt().next_power_of_two().max(MIN_LOAD_GROUP_SIZE)
}

/// Splits a list into ranges of neighbours with the same group.
pub(crate) fn group_ranges(groups: impl Iterator<Item = usize>) -> Vec<(usize, Range<usize>)> {
    let mut ranges: Vec<(usize, Range<usize>)> = Vec::new();
    for (i, group) in groups.enumerate() {
        match ranges.last_mut() {
            Some((last, range)) if *last == group => range.end = i + 1,
            _ => ranges.push((group, i..i + 1)),
        }
    }
    ranges
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_more_groups_than_there_are_versions() {
        for len in [0usize, 1, 15, 16, 17, 1000, 1024, 1025, 65_535, 65_536] {
            assert!(len.div_ceil(load_group_size(len)) <= MAX_LOAD_GROUPS, "{len} members");
        }
    }

    #[test]
    fn nothing_is_counted_before_tracking_starts() {
        let (versions, group) = (LoadVersions::new(), AtomicU32::new(3));
        versions.mark_changed(&group);
        assert_eq!(versions.version(3), 0);
        versions.start_tracking();
        versions.mark_changed(&group);
        assert_eq!((versions.version(3), versions.version(2)), (1, 0));
    }

    #[test]
    fn ranges_are_of_equal_neighbours() {
        assert_eq!(group_ranges([0, 0, 1, 2, 2].into_iter()), [(0, 0..2), (1, 2..3), (2, 3..5)]);
        assert_eq!(group_ranges([].into_iter()), []);
    }
}

/// The two claims under "Orderings", over all interleavings.
#[cfg(all(test, lvs_loom))]
mod model {
    use std::sync::Arc;

    use super::super::load::AtomicLoad;
    use super::super::{Limits, Load};
    use super::*;

    struct LoadVersionsModel {
        versions: LoadVersions,
        group: AtomicU32,
        word: AtomicLoad,
    }

    /// What a picker caches of a group.
    struct CachedGroupLoad {
        group: usize,
        version: u32,
        load: Load,
    }

    impl LoadVersionsModel {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                versions: LoadVersions::new(),
                group: AtomicU32::new(0),
                word: AtomicLoad::new(),
            })
        }

        /// Counts a new lease, as `BackendAccount` does.
        fn lease(&self) {
            assert!(self.word.bind(Limits::NONE, 0, false));
            self.versions.mark_changed(&self.group);
        }

        fn read_group(&self, group: usize) -> CachedGroupLoad {
            let version = self.versions.version(group);
            CachedGroupLoad { group, version, load: self.word.read() }
        }

        fn assert_not_stale(&self, cached: &CachedGroupLoad) {
            let is_current = self.versions.version(cached.group) == cached.version;
            assert!(
                !is_current || cached.load == self.word.read(),
                "a stale cache with a current version"
            );
        }
    }

    #[test]
    fn a_cache_made_while_tracking_starts_is_right_or_known_to_be_stale() {
        loom::model(|| {
            let model = LoadVersionsModel::new();
            let lease = {
                let model = Arc::clone(&model);
                loom::thread::spawn(move || model.lease())
            };
            model.versions.start_tracking();
            let cached = model.read_group(0);
            lease.join().expect("no panic");
            model.assert_not_stale(&cached);
        });
    }

    #[test]
    fn a_cache_made_while_a_member_changes_groups_is_right_or_known_to_be_stale() {
        loom::model(|| {
            let model = LoadVersionsModel::new();
            model.versions.start_tracking();
            let lease = {
                let model = Arc::clone(&model);
                loom::thread::spawn(move || model.lease())
            };
            model.group.store(1, Ordering::SeqCst);
            let cached = model.read_group(1);
            lease.join().expect("no panic");
            model.assert_not_stale(&cached);
        });
    }

    #[test]
    fn a_cache_in_service_is_right_or_known_to_be_stale() {
        loom::model(|| {
            let model = LoadVersionsModel::new();
            model.versions.start_tracking();
            let leases = [(); 2].map(|()| {
                let model = Arc::clone(&model);
                loom::thread::spawn(move || model.lease())
            });
            let cached = model.read_group(0);
            leases.into_iter().for_each(|lease| lease.join().expect("no panic"));
            model.assert_not_stale(&cached);
        });
    }
}
