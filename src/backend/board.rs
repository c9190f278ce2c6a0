//! Says which parts of a set have changed load, so that a least-loaded pick need not look at all.
//!
//! The members of a set fall into groups of neighbours, about as many as each has members. Every change of a
//! member's load is followed by a step of its group's version. A picker that remembers what it
//! found in a group (its least loaded member, its sum) together with the version it read before
//! looking may use that again as long as the version stands: with 1000 members it reads 32 versions
//! and looks into the one or two groups that moved.
//!
//! Nothing is counted until some picker asks ([`LoadVersions::start_tracking`]): other schedulers pay one read of a
//! line that never changes.
//!
//! # Orderings
//! Two orders matter, and `SeqCst` on both sides gives them:
//!
//! - *Turning it on, and moving a member to another group.* A lease changes the load word, then
//!   reads the flag and the group number. The writer changes flag or number, then publishes the
//!   plane whose picker starts with an empty memory. If the lease still read the old value, its
//!   change of the load word came before the writer's in the one order of `SeqCst`, so the picker's
//!   first look sees it; otherwise the lease steps the right version.
//! - *In service.* The version is read before the members are looked at, and stepped after a load
//!   has changed: a memory is never newer than what it remembers, only older, and then the version
//!   says so.

use std::ops::Range;

use crate::sync::{AtomicBool, AtomicU32, Ordering};

/// How many groups a set is split into at the most.
pub(crate) const MAX_LOAD_GROUPS: usize = 256;
/// Smaller groups cost more versions to read than they save members to look at.
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

    /// Starts to count changes; it never stops again.
    pub(crate) fn start_tracking(&self) {
        self.is_tracking.store(true, Ordering::SeqCst);
    }

    /// The version of a group; read it before looking at the members.
    #[inline]
    pub(crate) fn version(&self, group: usize) -> u32 {
        self.versions[group].load(Ordering::SeqCst)
    }

    /// Says that the load of a member of the group that `group` holds has changed.
    #[inline]
    pub(super) fn mark_changed(&self, group: &AtomicU32) {
        if self.is_tracking.load(Ordering::SeqCst) {
            let group = group.load(Ordering::SeqCst) as usize % MAX_LOAD_GROUPS;
            self.versions[group].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// How many members share a group in a set of `len`: about the square root, so that there are as
/// many versions to read as members to look at.
pub(super) fn load_group_size(len: usize) -> usize {
    len.isqrt().next_power_of_two().max(MIN_LOAD_GROUP_SIZE)
}

/// Splits a list into its runs of neighbours with the same group.
pub(crate) fn group_ranges(groups: impl Iterator<Item = usize>) -> Vec<(usize, Range<usize>)> {
    let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
    for (i, group) in groups.enumerate() {
        match runs.last_mut() {
            Some((last, range)) if *last == group => range.end = i + 1,
            _ => runs.push((group, i..i + 1)),
        }
    }
    runs
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
    fn nothing_is_counted_before_somebody_asks() {
        let (board, group) = (LoadVersions::new(), AtomicU32::new(3));
        board.mark_changed(&group);
        assert_eq!(board.version(3), 0);
        board.start_tracking();
        board.mark_changed(&group);
        assert_eq!((board.version(3), board.version(2)), (1, 0));
    }

    #[test]
    fn runs_are_ranges_of_equal_neighbours() {
        assert_eq!(group_ranges([0, 0, 1, 2, 2].into_iter()), [(0, 0..2), (1, 2..3), (2, 3..5)]);
        assert_eq!(group_ranges([].into_iter()), []);
    }
}

/// The two claims under "Orderings", over all interleavings; run by the line in `tests/loom.rs`.
#[cfg(all(test, lvs_loom))]
mod model {
    use std::sync::Arc;

    use super::super::load::LoadWord;
    use super::super::{Limits, Load};
    use super::*;

    struct LoadVersionsModel {
        board: LoadVersions,
        group: AtomicU32,
        word: LoadWord,
    }

    /// What a picker keeps of a group.
    struct CachedGroupLoad {
        group: usize,
        version: u32,
        load: Load,
    }

    impl LoadVersionsModel {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                board: LoadVersions::new(),
                group: AtomicU32::new(0),
                word: LoadWord::new(),
            })
        }

        /// A lease comes and another goes, as `Account` counts them.
        fn lease(&self) {
            assert!(self.word.bind(Limits::NONE, 0, false));
            self.board.changed(&self.group);
        }

        fn read_group(&self, group: usize) -> CachedGroupLoad {
            let version = self.board.version(group);
            CachedGroupLoad { group, version, load: self.word.read() }
        }

        fn assert_not_stale(&self, memory: &CachedGroupLoad) {
            let stands = self.board.version(memory.group) == memory.version;
            assert!(!stands || memory.load == self.word.read(), "stale, and nothing says so");
        }
    }

    #[test]
    fn a_memory_made_while_counting_begins_is_whole_or_known_to_be_stale() {
        loom::model(|| {
            let world = LoadVersionsModel::new();
            let lease = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.lease())
            };
            world.board.track();
            let memory = world.read_group(0);
            lease.join().expect("no panic");
            world.assert_not_stale(&memory);
        });
    }

    #[test]
    fn a_memory_made_while_a_member_changes_groups_is_whole_or_known_to_be_stale() {
        loom::model(|| {
            let world = LoadVersionsModel::new();
            world.board.track();
            let lease = {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.lease())
            };
            world.group.store(1, Ordering::SeqCst);
            let memory = world.read_group(1);
            lease.join().expect("no panic");
            world.assert_not_stale(&memory);
        });
    }

    #[test]
    fn a_memory_in_service_is_whole_or_known_to_be_stale() {
        loom::model(|| {
            let world = LoadVersionsModel::new();
            world.board.track();
            let leases = [(); 2].map(|()| {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || world.lease())
            });
            let memory = world.read_group(0);
            leases.into_iter().for_each(|lease| lease.join().expect("no panic"));
            world.assert_not_stale(&memory);
        });
    }
}
