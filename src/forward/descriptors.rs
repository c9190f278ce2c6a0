//! The descriptors of the process that connections and flows may take.
//!
//! A process at its limit of open files can neither answer an operator nor check a backend nor follow its
//! peer. So connections and flows leave a reserve, and a client for whom there is none waits in the
//! kernel's queue: it is accepted when both its descriptors, and the backend's, are there.
//!
//! The limit is one for the process, and so is the budget: a static. Descriptors that others open (the
//! listeners, checks, the rest of the program) are not reported to it but counted in `/proc/self/fd`, when
//! three quarters of the budget are taken, at most once a second.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::clock::now;

// Not the atomics of `crate::sync`: loom's cannot be in a static.
use std::sync::atomic::{AtomicUsize, Ordering};

static BUDGET: DescriptorBudget = DescriptorBudget::new();

/// The default reserve: enough for an admin address, a peer and the checks of a small set.
const DEFAULT_RESERVE: usize = 64;

/// The least time between two counts of what is open.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// The most that [`raise_descriptor_limit`] asks for: the kernel's own default of `fs.nr_open`. A limit
/// may be a thousand times as high, and there are programs that close every number up to it.
const MAX_RAISED_LIMIT: u64 = 1 << 20;

/// Sets how many descriptors connections and flows leave for everything else in this process: listening
/// sockets to come, health checks, an admin address, files. Default: 64.
///
/// The reserve is at most a quarter of the limit of open files (`ulimit -n`). It holds for all forwarders
/// of the process. Above what it leaves, TCP clients wait in the kernel's accept queue, and a new UDP flow
/// replaces the flow of its worker that has been idle longest.
pub fn set_descriptor_reserve(descriptors: usize) {
    BUDGET.reserve.store(descriptors, Ordering::Relaxed);
    BUDGET.measure_now();
}

/// Returns the limits of this process on descriptors, and how many connections and flows have taken.
#[must_use]
pub fn descriptor_usage() -> DescriptorUsage {
    BUDGET.measure_now();
    DescriptorUsage {
        limit: descriptor_limit(),
        allowed: BUDGET.allowed.load(Ordering::Relaxed),
        used: BUDGET.used.load(Ordering::Relaxed),
    }
}

/// Raises the limit of open files to the highest that this process may have (the *hard limit*), up to
/// 1 048 576, and returns the limit.
///
/// For the start of a program: shells and systemd start programs with a soft limit of 1024, which is
/// enough for 500 connections, and a hard limit of 500 000 or more. Child processes inherit the limit.
///
/// # Errors
/// The error of the system, `setrlimit(2)`.
pub fn raise_descriptor_limit() -> io::Result<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(MAX_RAISED_LIMIT).min(MAX_RAISED_LIMIT);
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
        BUDGET.measure_now();
    }
    Ok(descriptor_limit())
}

/// The descriptors of this process, from [`descriptor_usage`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DescriptorUsage {
    /// The limit of open files of this process.
    pub limit: usize,
    /// How many of them connections and flows may take: what others have open now and the
    /// [reserve](set_descriptor_reserve) are not among them. A TCP connection takes two, a UDP flow one.
    pub allowed: usize,
    /// How many of them connections and flows have taken.
    pub used: usize,
}

/// The right to open `N` descriptors for a client; its drop gives it back.
#[derive(Debug)]
#[must_use = "a dropped permit is released"]
pub(super) struct DescriptorPermit<const N: usize>(());

impl<const N: usize> DescriptorPermit<N> {
    /// Acquires a permit for a connection or a flow.
    ///
    /// # Errors
    /// [`NoDescriptors`] if too few are left.
    pub(super) fn try_acquire() -> Result<Self, NoDescriptors> {
        if BUDGET.try_take(N, Share::All) { Ok(Self(())) } else { Err(NoDescriptors) }
    }

    /// Acquires a permit for what only makes a connection faster; `None` if connections may soon need
    /// the descriptors.
    pub(super) fn try_acquire_spare() -> Option<Self> {
        BUDGET.try_take(N, Share::ThreeQuarters).then_some(Self(()))
    }
}

impl<const N: usize> Drop for DescriptorPermit<N> {
    fn drop(&mut self) {
        BUDGET.used.fetch_sub(N, Ordering::Relaxed);
    }
}

/// Connections and flows have taken all descriptors that they may.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) struct NoDescriptors;

impl fmt::Display for NoDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed = BUDGET.allowed.load(Ordering::Relaxed);
        write!(
            f,
            "connections and flows have taken the {allowed} descriptors that they may, of a limit of {} \
             open files (ulimit -n)",
            descriptor_limit()
        )
    }
}

impl From<NoDescriptors> for io::Error {
    fn from(error: NoDescriptors) -> Self {
        Self::other(error)
    }
}

/// How much of the budget may be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Share {
    All,
    ThreeQuarters,
}

#[derive(Debug)]
struct DescriptorBudget {
    /// Taken by connections and flows, or about to be.
    used: AtomicUsize,
    /// The most that `used` may be. 0 before the first count.
    allowed: AtomicUsize,
    reserve: AtomicUsize,
    measured_at: Mutex<Option<Instant>>,
}

impl DescriptorBudget {
    const fn new() -> Self {
        Self {
            used: AtomicUsize::new(0),
            allowed: AtomicUsize::new(0),
            reserve: AtomicUsize::new(DEFAULT_RESERVE),
            measured_at: Mutex::new(None),
        }
    }

    // Relaxed throughout: the numbers are a bound, and guard no other memory.
    fn try_take(&self, count: usize, share: Share) -> bool {
        let used = self.used.fetch_add(count, Ordering::Relaxed) + count;
        let allowed = self.allowed.load(Ordering::Relaxed);
        if used <= allowed - allowed / 4 {
            return true;
        }
        self.measure_if_due(count);
        let allowed = self.allowed.load(Ordering::Relaxed);
        let most = match share {
            Share::All => allowed,
            Share::ThreeQuarters => allowed - allowed / 4,
        };
        if used > most {
            self.used.fetch_sub(count, Ordering::Relaxed);
        }
        used <= most
    }

    /// Counts what is open, unless that was done a moment ago. `pending` of `used` are not open yet.
    #[cold]
    fn measure_if_due(&self, pending: usize) {
        // Another thread that counts at the moment is as good.
        let Ok(mut measured_at) = self.measured_at.try_lock() else { return };
        let now = now();
        if measured_at.is_none_or(|at| now.saturating_duration_since(at) >= MEASURE_INTERVAL) {
            *measured_at = Some(now);
            self.measure(pending);
        }
    }

    fn measure_now(&self) {
        *self.measured_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now());
        self.measure(0);
    }

    fn measure(&self, pending: usize) {
        match open_descriptors() {
            Ok(open) => self.set_allowed(descriptor_limit(), open, pending),
            // Without /proc there is no budget, and the system's own error at the limit.
            Err(_) if self.allowed.load(Ordering::Relaxed) == 0 => {
                self.allowed.store(usize::MAX, Ordering::Relaxed);
            }
            // The previous count is better than none.
            Err(_) => {}
        }
    }

    fn set_allowed(&self, limit: usize, open: usize, pending: usize) {
        let own = self.used.load(Ordering::Relaxed).saturating_sub(pending);
        let others = open.saturating_sub(own);
        let reserve = self.reserve.load(Ordering::Relaxed).min(limit / 4);
        // At least one connection, so that a service is not dead for what others have opened.
        let allowed = limit.saturating_sub(others + reserve).max(2);
        self.allowed.store(allowed, Ordering::Relaxed);
    }
}

fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Returns how many descriptors this process has open.
fn open_descriptors() -> io::Result<usize> {
    // One entry is the folder itself, which is closed again.
    Ok(std::fs::read_dir("/proc/self/fd")?.count().saturating_sub(1))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    /// A budget that counts nothing by itself.
    fn budget(limit: usize, open: usize) -> DescriptorBudget {
        let budget = DescriptorBudget::new();
        *budget.measured_at.lock().expect("not poisoned") = Some(now() + Duration::from_secs(3600));
        budget.set_allowed(limit, open, 0);
        budget
    }

    #[test]
    fn what_others_have_open_and_the_reserve_are_left() {
        let budget = budget(1024, 60);
        assert_eq!(budget.allowed.load(Ordering::Relaxed), 1024 - 60 - DEFAULT_RESERVE);
        for _ in 0..450 {
            assert!(budget.try_take(2, Share::All));
        }
        assert!(!budget.try_take(2, Share::All), "900 are taken");
        assert!(budget.try_take(0, Share::All), "a refusal takes nothing");
        // The connections have opened theirs: they are not counted twice.
        budget.set_allowed(1024, 60 + 900, 0);
        assert_eq!(budget.allowed.load(Ordering::Relaxed), 900);
    }

    #[test]
    fn the_reserve_is_at_most_a_quarter_and_one_connection_is_always_possible() {
        assert_eq!(budget(60, 25).allowed.load(Ordering::Relaxed), 20);
        let full = budget(60, 60);
        assert!(full.try_take(2, Share::All));
        assert!(!full.try_take(2, Share::All));
    }

    #[test]
    fn a_pipe_leaves_the_last_quarter_to_connections() {
        let budget = budget(1064, 0);
        assert!(budget.try_take(748, Share::All));
        assert!(budget.try_take(2, Share::ThreeQuarters));
        assert!(!budget.try_take(2, Share::ThreeQuarters));
        assert!(budget.try_take(2, Share::All));
    }

    #[test]
    fn the_first_permit_counts_what_is_open() {
        drop(DescriptorPermit::<2>::try_acquire().expect("the tests have descriptors"));
        let usage = descriptor_usage();
        assert!(usage.allowed > 0 && usage.allowed < usage.limit, "{usage:?}");
    }
}
