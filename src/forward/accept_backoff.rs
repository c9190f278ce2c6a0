//! How long to leave the listener alone after a failed accept.

use std::time::Duration;

/// Waits twice as long each time, up to a bound.
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    last_delay: Option<Duration>,
}

/// Short enough that a passing shortage is hardly noticed.
const MIN_ACCEPT_DELAY: Duration = Duration::from_millis(10);

/// Long enough to cost nothing, short enough to be back soon after a descriptor is free.
const MAX_ACCEPT_DELAY: Duration = Duration::from_secs(1);

impl AcceptBackoff {
    /// Tells whether the last accept went well.
    pub(super) fn is_reset(&self) -> bool {
        self.last_delay.is_none()
    }

    /// Notes a failure and says how long to wait.
    pub(super) fn next_delay(&mut self) -> Duration {
        let wait =
            self.last_delay.map_or(MIN_ACCEPT_DELAY, |last| (last * 2).min(MAX_ACCEPT_DELAY));
        self.last_delay = Some(wait);
        wait
    }

    /// Notes a success.
    pub(super) fn reset(&mut self) {
        self.last_delay = None;
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_start_over_after_a_success() {
        let mut backoff = AcceptBackoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert!(!backoff.is_reset());
        backoff.reset();
        assert!(backoff.is_reset());
        assert_eq!(backoff.next_delay(), MIN_ACCEPT_DELAY);
    }
}
