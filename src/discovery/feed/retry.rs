//! The waits between the retries of a failing source.

use std::time::Duration;

use crate::setting::{SettingError, check_range};

/// An exponential backoff with jitter.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryBackoff {
    first: Duration,
    longest: Duration,
    last: Option<Duration>,
}

impl RetryBackoff {
    pub(super) const DEFAULT: Self =
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30), last: None };

    pub(super) fn new(first: Duration, longest: Duration) -> Result<Self, SettingError> {
        let longest = check_range("retry.longest", longest, first..)?;
        Ok(Self { first, longest, last: None })
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns the wait after the next failure: a random time from half of the bound to the bound,
    /// which doubles with each failure.
    pub(super) fn next_wait(&mut self) -> Duration {
        let bound = self.last.map_or(self.first, |last| last.saturating_mul(2)).min(self.longest);
        self.last = Some(bound);
        let half = bound / 2;
        let jitter = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(fastrand::u64(0..=jitter))
    }

    /// Starts again with the first wait.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}
