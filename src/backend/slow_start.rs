//! Slow start: a backend that comes up gets its share step by step.

use std::ops::RangeInclusive;
use std::time::Duration;

use thiserror::Error;

/// The growth of the share of a backend that comes up.
///
/// At the age `t` within a `window` the backend counts with
/// `max(min_percent, (max(t, 1 s) / window)^(1 / aggression))` of its weight, as in Envoy. An
/// aggression of 1 is the straight line of HAProxy; above 1 the share grows faster at first. Slow start
/// scales the share that `rr` to `peak_ewma` give. Hash schedulers ignore it, since a key has one
/// backend, and so do the rules that read a weight as a number of connections (`ovf`, `lblc`, `lblcr`).
///
/// Backends that are inserted before the first
/// [`advance_slow_start`](crate::BackendSet::advance_slow_start) of a set count in full at once.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::SlowStart;
///
/// let linear = SlowStart::new(Duration::from_secs(30));
/// assert_eq!(linear.percent_at_age(Duration::from_secs(15)), 50);
/// let eager = linear.with_aggression(2.0)?;
/// assert_eq!(eager.percent_at_age(Duration::from_secs(15)), 70);
/// # Ok::<(), lvs::backend::SlowStartError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    aggression: f64,
    min_percent: u8,
}

/// The least share that can be set, in percent.
const MIN_PERCENT_RANGE: RangeInclusive<u8> = 1..=100;

/// A value that slow start cannot use.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SlowStartError {
    /// The aggression is not a number above 0.
    #[error("`aggression` is {0}, and must be above 0")]
    Aggression(f64),
    /// The least share is not within 1 to 100 percent.
    #[error("`min_percent` is {0}, and must be from 1 to 100")]
    MinPercent(u8),
}

impl SlowStart {
    /// Makes a slow start with a straight line over `window`, from a tenth of the weight on.
    #[must_use]
    pub const fn new(window: Duration) -> Self {
        Self { window, aggression: 1.0, min_percent: 10 }
    }

    /// Returns this slow start with another aggression, which bends the line. Default: 1.0.
    ///
    /// # Errors
    /// [`SlowStartError::Aggression`] for a value that is not a number above 0.
    pub fn with_aggression(self, aggression: f64) -> Result<Self, SlowStartError> {
        match aggression.is_finite() && aggression > 0.0 {
            true => Ok(Self { aggression, ..self }),
            false => Err(SlowStartError::Aggression(aggression)),
        }
    }

    /// Returns this slow start with another least share, in percent. Default: 10.
    ///
    /// # Errors
    /// [`SlowStartError::MinPercent`] for a value that is not within 1 to 100.
    pub fn with_min_percent(self, min_percent: u8) -> Result<Self, SlowStartError> {
        match MIN_PERCENT_RANGE.contains(&min_percent) {
            true => Ok(Self { min_percent, ..self }),
            false => Err(SlowStartError::MinPercent(min_percent)),
        }
    }

    /// Returns the time after which a backend has its full share.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Returns the percentage of its weight with which a backend counts, `age` after it came up.
    #[must_use]
    pub fn percent_at_age(&self, age: Duration) -> u8 {
        if age >= self.window {
            return 100;
        }
        let age = age.max(Duration::from_secs(1)).as_secs_f64();
        let share = (age / self.window.as_secs_f64()).powf(1.0 / self.aggression);
        ((share * 100.0) as u8).clamp(self.min_percent, 100)
    }

    /// Returns the time between two updates of the share: a twentieth of the window, at least 1 s.
    #[must_use]
    pub fn update_interval(&self) -> Duration {
        (self.window / 20).max(Duration::from_secs(1)).min(self.window)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_the_least_percentage_to_all() {
        let slow_start = SlowStart::new(Duration::from_secs(100));
        let at = |secs| slow_start.percent_at_age(Duration::from_secs(secs));
        assert_eq!(
            [at(0), at(5), at(11), at(50), at(99), at(100), at(500)],
            [10, 10, 11, 50, 99, 100, 100]
        );
    }

    #[test]
    fn the_first_second_counts_as_a_whole_one() {
        let slow_start = SlowStart::new(Duration::from_secs(4));
        let slow_start = slow_start.with_min_percent(1).expect("within the range");
        assert_eq!(slow_start.percent_at_age(Duration::ZERO), 25);
    }

    #[test]
    fn a_window_of_zero_is_no_slow_start() {
        assert_eq!(SlowStart::new(Duration::ZERO).percent_at_age(Duration::ZERO), 100);
        assert_eq!(SlowStart::new(Duration::ZERO).update_interval(), Duration::ZERO);
    }

    #[test]
    fn values_outside_their_range_are_refused() {
        let slow_start = SlowStart::new(Duration::from_secs(4));
        for aggression in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = slow_start.with_aggression(aggression).expect_err("not above 0");
            assert!(matches!(error, SlowStartError::Aggression(_)), "{error}");
        }
        for percent in [0, 101] {
            let error = slow_start.with_min_percent(percent).expect_err("outside the range");
            assert_eq!(error, SlowStartError::MinPercent(percent));
        }
    }
}
