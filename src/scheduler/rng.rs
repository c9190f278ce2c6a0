//! The random generator of picks.

use std::hash::{BuildHasher, RandomState};

/// A small, fast random generator (wyrand); not for secrets.
///
/// A pick takes its generator as an argument, so that a test or simulation with a fixed seed is
/// repeatable. [`Balancer::pick`](crate::Balancer::pick) keeps a generator for each thread.
///
/// # Examples
/// ```
/// use lvs::scheduler::Rng;
///
/// let mut rng = Rng::with_seed(7);
/// assert!(rng.below(10) < 10);
/// assert_eq!(Rng::with_seed(7).next_u64(), Rng::with_seed(7).next_u64());
/// ```
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Creates a generator that returns the same numbers for the same seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Creates a generator with an unpredictable seed.
    #[must_use]
    pub fn from_entropy() -> Self {
        // The standard library's keys are random for each process and differ for each call.
        Self::with_seed(RandomState::new().hash_one(0))
    }

    /// Returns a uniform number in `0..2^64`.
    pub fn next_u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Returns a uniform number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.0.u64(..bound) }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.0.get_seed()
    }
}
