//! The connections of a backend, its limits, and the overload flag.
//!
//! One 64-bit word holds the active count, the inactive count and the overload flag, so that a
//! reader always sees a state that existed, and the flag agrees with the counts.

use crate::setting::{SettingError, check_range};
use crate::sync::{AtomicU64, Ordering};

/// The connections that a backend has now.
///
/// As in IPVS, a connection is *active* while it does work (an established TCP connection) and
/// *inactive* while it only exists (closing, or a UDP flow). A lease starts active.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[non_exhaustive]
pub struct Load {
    /// Connections that do work.
    pub active: u32,
    /// Connections that exist and do no work.
    pub inactive: u32,
}

impl Load {
    /// Returns active and inactive connections together, which is what limits count.
    #[must_use]
    pub const fn total(self) -> u32 {
        self.active.saturating_add(self.inactive)
    }
}

/// The connection limits of a backend.
///
/// With `max_connections` the backend is overloaded and gets no new work, until its connections fall
/// below `resume_below` (below three quarters of `max_connections` if that is 0). These are the upper
/// and lower thresholds of `ipvsadm` (`-x`, `-y`). `max_connections` is never exceeded, however many
/// threads pick at once.
///
/// # Examples
/// ```
/// use lvs::Limits;
///
/// let limits = Limits::new(100).with_resume_below(80);
/// assert_eq!(limits.resume_threshold(), 80);
/// assert_eq!(Limits::new(100).resume_threshold(), 75);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Limits {
    max_connections: u32,
    resume_below: u32,
}

impl Limits {
    /// No limit. The default.
    pub const NONE: Self = Self { max_connections: 0, resume_below: 0 };

    /// Makes limits of at most `max_connections`; 0 is no limit. The set refuses a value above
    /// [`MAX_CONNECTION_LIMIT`].
    #[must_use]
    pub const fn new(max_connections: u32) -> Self {
        Self { max_connections, resume_below: 0 }
    }

    /// Returns these limits with another lower limit: an overloaded backend takes new work again with
    /// fewer connections than this.
    ///
    /// 0 means three quarters of the maximum. The set refuses a value above the maximum.
    #[must_use]
    pub const fn with_resume_below(self, resume_below: u32) -> Self {
        Self { resume_below, ..self }
    }

    /// Returns the upper limit; 0 is no limit.
    #[must_use]
    pub const fn max_connections(self) -> u32 {
        self.max_connections
    }

    /// Returns the lower limit as configured; 0 means three quarters of the upper one.
    #[must_use]
    pub const fn resume_below(self) -> u32 {
        self.resume_below
    }

    /// Returns the count below which an overloaded backend takes new work again.
    #[must_use]
    pub const fn resume_threshold(self) -> u32 {
        if self.resume_below != 0 {
            self.resume_below
        } else {
            // The kernel's rule is 4 * count < 3 * max; the least count that breaks it:
            (3u64 * self.max_connections as u64).div_ceil(4) as u32
        }
    }

    /// Checks the limits, as a set does that gets them.
    ///
    /// # Errors
    /// [`SettingError`] names the limit that is out of range.
    pub(crate) fn validate(self) -> Result<(), SettingError> {
        check_range("max_connections", self.max_connections, 0..=MAX_CONNECTION_LIMIT)?;
        check_range("resume_below", self.resume_below, 0..=self.max_connections)?;
        Ok(())
    }
}

/// The atomic word behind [`Load`].
///
/// # Orderings
/// Every access is `SeqCst`, which on x86 costs nothing over weaker orderings for these operations.
/// The argument in [`super::load_versions`] needs it: a change of the word and the read of the tracking
/// flag after it cannot be seen in the other order.
#[derive(Debug)]
pub(super) struct AtomicLoad {
    word: AtomicU64,
}

const ONE_ACTIVE: u64 = 1;
const ONE_INACTIVE: u64 = 1 << 32;
const OVERLOAD_BIT: u64 = 1 << 63;
/// The largest connection limit that a backend can have: 2^30. It lies below the bits of the other
/// fields of the word that counts connections.
pub const MAX_CONNECTION_LIMIT: u32 = 1 << 30;

impl AtomicLoad {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0) }
    }

    #[inline]
    pub(super) fn read(&self) -> Load {
        unpack_load(self.word.load(Ordering::SeqCst))
    }

    /// Tells whether the backend is at its limit, or was and has not fallen below the lower limit yet.
    /// Here and below, `elsewhere` is the count on [lanes](super::counter_lane).
    #[inline]
    pub(super) fn is_overloaded(&self, limits: Limits, elsewhere: u32) -> bool {
        if limits.max_connections == 0 {
            return false;
        }
        let word = self.word.load(Ordering::SeqCst);
        let total = unpack_load(word).total().saturating_add(elsewhere);
        // A change of limits at the same time can leave the flag set: the count decides.
        total >= limits.max_connections
            || (word & OVERLOAD_BIT != 0 && total >= limits.resume_threshold())
    }

    /// Adds one active connection; `false` if the limit forbids it and `force` does not override.
    #[inline]
    pub(super) fn bind(&self, limits: Limits, elsewhere: u32, force: bool) -> bool {
        if limits.max_connections == 0 {
            let before = unpack_load(self.word.fetch_add(ONE_ACTIVE, Ordering::SeqCst));
            debug_assert!(
                before.active < MAX_CONNECTION_LIMIT,
                "more than 2^30 leases on one backend"
            );
            return true;
        }
        self.update_limited(limits, elsewhere, |load| {
            (force || load.total().saturating_add(elsewhere) < limits.max_connections)
                .then_some(Load { active: load.active + 1, inactive: load.inactive })
        })
    }

    /// Removes one connection.
    #[inline]
    pub(super) fn unbind(&self, active: bool, limits: Limits, elsewhere: u32) {
        let one = if active { ONE_ACTIVE } else { ONE_INACTIVE };
        if limits.max_connections == 0 {
            self.word.fetch_sub(one, Ordering::SeqCst);
            return;
        }
        self.update_limited(limits, elsewhere, |load| {
            Some(if active {
                Load { active: load.active.saturating_sub(1), ..load }
            } else {
                Load { inactive: load.inactive.saturating_sub(1), ..load }
            })
        });
    }

    /// Moves one connection between the two counts; the total stays the same.
    pub(super) fn set_active(&self, active: bool) {
        let step = ONE_INACTIVE - ONE_ACTIVE;
        if active {
            self.word.fetch_sub(step, Ordering::SeqCst);
        } else {
            self.word.fetch_add(step, Ordering::SeqCst);
        }
    }

    /// Overwrites the counts, for mirrors of counters that are kept elsewhere.
    pub(super) fn store(&self, load: Load, limits: Limits) {
        let load = Load {
            active: load.active.min(MAX_CONNECTION_LIMIT),
            inactive: load.inactive.min(MAX_CONNECTION_LIMIT),
        };
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            // The kernel sets the flag when it binds, never when it counts: keep or clear it.
            let flag = word & OVERLOAD_BIT != 0
                && limits.max_connections != 0
                && load.total() >= limits.resume_threshold();
            match self.exchange(word, pack_load(load, flag)) {
                Ok(()) => return,
                Err(seen) => word = seen,
            }
        }
    }

    /// Applies one atomic step to a limited backend, flag included; `false` if `step` refuses.
    fn update_limited(
        &self,
        limits: Limits,
        elsewhere: u32,
        step: impl Fn(Load) -> Option<Load>,
    ) -> bool {
        let mut word = self.word.load(Ordering::SeqCst);
        loop {
            let Some(load) = step(unpack_load(word)) else { return false };
            let total = load.total().saturating_add(elsewhere);
            let flag = total >= limits.max_connections
                || (word & OVERLOAD_BIT != 0 && total >= limits.resume_threshold());
            match self.exchange(word, pack_load(load, flag)) {
                Ok(()) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    fn exchange(&self, from: u64, to: u64) -> Result<(), u64> {
        self.word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).map(drop)
    }
}

#[inline]
fn unpack_load(word: u64) -> Load {
    Load { active: word as u32, inactive: ((word & !OVERLOAD_BIT) >> 32) as u32 }
}

fn pack_load(load: Load, overloaded: bool) -> u64 {
    let flag = if overloaded { OVERLOAD_BIT } else { 0 };
    u64::from(load.active) | u64::from(load.inactive) << 32 | flag
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_flag_rises_at_the_maximum_and_falls_below_three_quarters() {
        let limits = Limits::new(4);
        let word = AtomicLoad::new();
        for _ in 0..4 {
            assert!(!word.is_overloaded(limits, 0));
            assert!(word.bind(limits, 0, false));
        }
        assert!(word.is_overloaded(limits, 0));
        assert!(!word.bind(limits, 0, false), "a fifth connection is refused");
        word.unbind(true, limits, 0);
        assert!(word.is_overloaded(limits, 0), "3 of 4 is not below three quarters");
        word.unbind(true, limits, 0);
        assert!(!word.is_overloaded(limits, 0));
        assert_eq!(word.read(), Load { active: 2, inactive: 0 });
    }

    #[test]
    fn a_configured_lower_limit_is_kept() {
        let limits = Limits::new(4).with_resume_below(1);
        let word = AtomicLoad::new();
        (0..4).for_each(|_| assert!(word.bind(limits, 0, false)));
        for left in [3, 2, 1] {
            word.unbind(true, limits, 0);
            assert_eq!(word.read().active, left);
            assert!(word.is_overloaded(limits, 0));
        }
        word.unbind(true, limits, 0);
        assert!(!word.is_overloaded(limits, 0));
    }

    #[test]
    fn connections_move_between_the_counts() {
        let word = AtomicLoad::new();
        assert!(word.bind(Limits::NONE, 0, false) && word.bind(Limits::NONE, 0, false));
        word.set_active(false);
        assert_eq!(word.read(), Load { active: 1, inactive: 1 });
        word.set_active(true);
        word.set_active(false);
        word.unbind(false, Limits::NONE, 0);
        word.unbind(true, Limits::NONE, 0);
        assert_eq!(word.read(), Load::default());
    }

    #[test]
    fn a_flag_left_behind_by_a_change_of_limits_does_not_starve_the_backend() {
        let limits = Limits::new(2);
        let word = AtomicLoad::new();
        assert!(word.bind(limits, 0, false) && word.bind(limits, 0, false));
        word.unbind(true, Limits::NONE, 0);
        word.unbind(true, Limits::NONE, 0);
        assert!(!word.is_overloaded(limits, 0));
        assert!(word.bind(limits, 0, false));
    }
}
