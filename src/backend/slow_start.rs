//! Slow start: a backend that has just come up gets its share by and by.

use std::time::Duration;

/// How the share of a newly eligible backend grows.
///
/// After `t` of a `window` the backend counts with
/// `max(floor, (max(t, 1 s) / window)^(1 / aggression))` of its weight, Envoy's formula; an
/// aggression of 1 is the straight line of HAProxy, above 1 it starts faster. It scales the share
/// that `rr` to `peak_ewma` give; hash schedulers ignore it (a key has one home), and so do the
/// rules that read a weight as a number of connections (`ovf`, `lblc`, `lblcr`).
///
/// Backends inserted before the first [`tick`](crate::BackendSet::tick) of a set are not slowed
/// down: when everything is new, nothing is.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use lvs::SlowStart;
///
/// let linear = SlowStart::new(Duration::from_secs(30));
/// assert_eq!(linear.percent_at_age(Duration::from_secs(15)), 50);
/// let eager = linear.aggression(2.0);
/// assert_eq!(eager.percent_at_age(Duration::from_secs(15)), 70);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    window: Duration,
    aggression: f64,
    min_percent: u8,
}

impl SlowStart {
    /// Grows in a straight line over `window`, from a tenth of the weight on.
    #[must_use]
    pub const fn new(window: Duration) -> Self {
        Self { window, aggression: 1.0, min_percent: 10 }
    }

    /// Bends the line. Values that are not above 0 count as 1. Default: 1.0.
    #[must_use]
    pub fn aggression(self, aggression: f64) -> Self {
        let usable = aggression.is_finite() && aggression > 0.0;
        Self { aggression: if usable { aggression } else { 1.0 }, ..self }
    }

    /// The least share in percent, from 1 to 100. Default: 10.
    #[must_use]
    pub fn min_percent(self, percent: u8) -> Self {
        Self { min_percent: percent.clamp(1, 100), ..self }
    }

    /// The time until the full share is reached.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// The percentage of its weight that a backend counts with, `age` after it came up.
    #[must_use]
    pub fn percent_at_age(&self, age: Duration) -> u8 {
        if age >= self.window {
            return 100;
        }
        let age = age.max(Duration::from_secs(1)).as_secs_f64();
        let share = (age / self.window.as_secs_f64()).powf(1.0 / self.aggression);
        ((share * 100.0) as u8).clamp(self.min_percent, 100)
    }

    /// How often the share is worked out anew: a twentieth of the window, at least 1 s apart.
    #[must_use]
    pub fn update_interval(&self) -> Duration {
        (self.window / 20).max(Duration::from_secs(1)).min(self.window)
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_line_starts_at_the_floor_and_ends_at_the_whole() {
        let it = SlowStart::new(Duration::from_secs(100));
        let at = |secs| it.percent_at_age(Duration::from_secs(secs));
        assert_eq!(
            [at(0), at(5), at(11), at(50), at(99), at(100), at(500)],
            [10, 10, 11, 50, 99, 100, 100]
        );
    }

    #[test]
    fn the_first_second_counts_as_a_whole_one() {
        let it = SlowStart::new(Duration::from_secs(4)).min_percent(1);
        assert_eq!(it.percent_at_age(Duration::ZERO), 25);
    }

    #[test]
    fn a_window_of_nothing_is_no_slow_start() {
        assert_eq!(SlowStart::new(Duration::ZERO).percent_at_age(Duration::ZERO), 100);
        assert_eq!(
            SlowStart::new(Duration::ZERO).aggression(f64::NAN).update_interval(),
            Duration::ZERO
        );
    }
}
