//! The delay before the next accept after a failed accept.

use std::time::Duration;

/// An exponential backoff: each delay is twice the previous, up to [`MAX_ACCEPT_DELAY`].
#[derive(Debug, Default)]
pub(super) struct AcceptBackoff {
    last_delay: Option<Duration>,
}

/// Short enough that clients hardly notice a brief shortage.
const MIN_ACCEPT_DELAY: Duration = Duration::from_millis(10);

/// Long enough to cost no processor time, short enough to accept soon after a descriptor is free.
const MAX_ACCEPT_DELAY: Duration = Duration::from_millis(200);

impl AcceptBackoff {
    /// Tells whether the last accept succeeded.
    pub(super) fn is_reset(&self) -> bool {
        self.last_delay.is_none()
    }

    /// Counts a failure and returns the delay before the next accept.
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay =
            self.last_delay.map_or(MIN_ACCEPT_DELAY, |last| (last * 2).min(MAX_ACCEPT_DELAY));
        self.last_delay = Some(delay);
        delay
    }

    /// Resets the delay after a success.
    pub(super) fn reset(&mut self) {
        self.last_delay = None;
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_maximum_and_restart_after_a_success() {
        let mut backoff = AcceptBackoff::default();
        let delays: Vec<u128> = (0..7).map(|_| backoff.next_delay().as_millis()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 200, 200]);
        assert!(!backoff.is_reset());
        backoff.reset();
        assert!(backoff.is_reset());
        assert_eq!(backoff.next_delay(), MIN_ACCEPT_DELAY);
    }
}
