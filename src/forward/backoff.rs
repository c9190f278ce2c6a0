//! How long to leave the listener alone after a failed accept.

use std::time::Duration;

/// Waits twice as long each time, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<Duration>,
}

/// Short enough that a passing shortage is hardly noticed.
const FIRST: Duration = Duration::from_millis(10);

/// Long enough to cost nothing, short enough to be back soon after a descriptor is free.
const LONGEST: Duration = Duration::from_secs(1);

impl Backoff {
    /// Tells whether the last accept went well.
    pub(super) fn is_calm(&self) -> bool {
        self.last.is_none()
    }

    /// Notes a failure and says how long to wait.
    pub(super) fn fail(&mut self) -> Duration {
        let wait = self.last.map_or(FIRST, |last| (last * 2).min(LONGEST));
        self.last = Some(wait);
        wait
    }

    /// Notes a success.
    pub(super) fn succeed(&mut self) {
        self.last = None;
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.fail().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(!backoff.is_calm());
        backoff.succeed();
        assert!(backoff.is_calm());
        assert_eq!(backoff.fail(), FIRST);
    }
}
