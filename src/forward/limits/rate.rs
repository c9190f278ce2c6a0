//! The rate limit for new connections: a token bucket.

use std::time::{Duration, Instant};

use crate::setting::{SettingError, check_range};

/// A rate of new connections: how many per second, and how many at once.
///
/// In any period `t` at most `burst + per_second * t` connections are admitted. After an idle period
/// `burst` connections are admitted at once, the following ones at an even pace.
///
/// # Examples
/// ```
/// use lvs::forward::ConnectionRate;
///
/// let rate = ConnectionRate::new(1000)?.with_burst(50)?;
/// assert_eq!((rate.per_second(), rate.burst()), (1000, 50));
/// # Ok::<(), lvs::SettingError>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct ConnectionRate {
    per_second: u32,
    burst: u32,
}

impl ConnectionRate {
    /// Makes a rate of connections per second, with a burst of the same number.
    ///
    /// # Errors
    /// [`SettingError`] if the rate is 0, which would admit no connection.
    pub fn new(per_second: u32) -> Result<Self, SettingError> {
        let per_second = check_range("per_second", per_second, 1..)?;
        Ok(Self { per_second, burst: per_second })
    }

    /// Returns the same rate with another burst: the connections admitted at once after an idle
    /// period.
    ///
    /// # Errors
    /// [`SettingError`] if the burst is 0, which would admit no connection.
    pub fn with_burst(self, burst: u32) -> Result<Self, SettingError> {
        Ok(Self { burst: check_range("burst", burst, 1..)?, ..self })
    }

    /// Returns the connections admitted per second in the long run.
    #[must_use]
    pub const fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Returns the connections admitted at once after an idle period.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }
}

/// The token bucket of a [`ConnectionRate`].
///
/// Exact: credit is counted in billionths of a connection, and a rate of `n` per second earns `n` of
/// them each nanosecond, so nothing is rounded away. A call takes about 12 ns.
///
/// Has a single owner. Worker threads that share a rate keep the bucket behind a lock: with a share
/// for each thread, one thread would refuse connections while another has credit left.
#[derive(Clone, Debug)]
pub(in crate::forward) struct AcceptTokenBucket {
    rate: ConnectionRate,
    /// Billionths of a connection, at most the burst.
    credit: u64,
    /// The latest instant up to which credit is earned.
    credited_until: Option<Instant>,
}

/// The credit that a connection costs.
const CONNECTION_CREDIT: u64 = 1_000_000_000;

impl AcceptTokenBucket {
    /// Makes a bucket with the credit of a full burst.
    pub(in crate::forward) const fn new(rate: ConnectionRate) -> Self {
        Self { rate, credit: rate.burst as u64 * CONNECTION_CREDIT, credited_until: None }
    }

    /// Admits a connection, or returns how long to wait before the next call.
    ///
    /// Instants may come in any order; an instant before the latest earns no credit.
    ///
    /// # Errors
    /// The wait, never zero, after which a connection is admitted unless another was admitted first.
    pub(in crate::forward) fn try_admit(&mut self, now: Instant) -> Result<(), Duration> {
        let credited = self.credited_until.unwrap_or(now);
        let earned = now.saturating_duration_since(credited).as_nanos();
        let earned = earned.saturating_mul(self.rate.per_second.into());
        let full = u64::from(self.rate.burst) * CONNECTION_CREDIT;
        self.credit =
            u64::try_from(earned).unwrap_or(u64::MAX).saturating_add(self.credit).min(full);
        self.credited_until = Some(credited.max(now));
        if let Some(left) = self.credit.checked_sub(CONNECTION_CREDIT) {
            self.credit = left;
            return Ok(());
        }
        let wait = (CONNECTION_CREDIT - self.credit).div_ceil(self.rate.per_second.into());
        // An instant in the past also waits until the credited instant.
        Err(credited.saturating_duration_since(now).saturating_add(Duration::from_nanos(wait)))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> ConnectionRate {
        ConnectionRate::new(per_second).and_then(|rate| rate.with_burst(burst)).expect("not 0")
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    #[test]
    fn a_burst_is_admitted_at_once_and_then_one_connection_per_interval() {
        let start = start();
        let mut bucket = AcceptTokenBucket::new(rate(3, 2));
        assert_eq!([bucket.try_admit(start), bucket.try_admit(start)], [Ok(()), Ok(())]);
        let third = Duration::from_nanos(333_333_334);
        assert_eq!(bucket.try_admit(start), Err(third));
        assert_eq!(
            bucket.try_admit(start + third - Duration::from_nanos(1)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(bucket.try_admit(start + third), Ok(()));
        // The two surplus billionths are not lost: three connections take one second.
        assert_eq!(bucket.try_admit(start + Duration::from_nanos(666_666_667)), Ok(()));
        assert_eq!(bucket.try_admit(start + Duration::from_secs(1)), Ok(()));
        assert_eq!(bucket.try_admit(start + Duration::from_secs(1)), Err(third));
    }

    #[test]
    fn a_long_idle_period_earns_at_most_the_burst() {
        let start = start();
        let mut bucket = AcceptTokenBucket::new(rate(u32::MAX, 5));
        for now in [start, start + Duration::from_secs(1 << 32)] {
            let admitted = (0..10).filter(|_| bucket.try_admit(now).is_ok()).count();
            assert_eq!(admitted, 5);
        }
    }

    #[test]
    fn an_instant_in_the_past_earns_nothing_and_waits_for_the_credited_instant() {
        let start = start();
        let late = start + Duration::from_secs(10);
        let mut bucket = AcceptTokenBucket::new(rate(1, 1));
        assert_eq!(bucket.try_admit(late), Ok(()));
        assert_eq!(bucket.try_admit(start), Err(Duration::from_secs(11)));
        assert_eq!(bucket.try_admit(late), Err(Duration::from_secs(1)));
        assert_eq!(bucket.try_admit(late + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_rate_and_a_burst_of_zero_are_refused() {
        let text = |rate: Result<ConnectionRate, SettingError>| rate.expect_err("0").to_string();
        assert_eq!(text(ConnectionRate::new(0)), "per_second is 0, must be at least 1");
        assert_eq!(text(rate(1, 1).with_burst(0)), "burst is 0, must be at least 1");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        /// Compares with the definition: never more than `burst + rate * t` in any period from the
        /// start, never fewer than an even pace allows, and the wait is exact.
        #[test]
        fn the_rate_is_exact_to_the_nanosecond(
            per_second in 1_u32..=2_000_000,
            burst in 1_u32..=20,
            gaps in prop::collection::vec(0_u64..=3_000_000, 1..200),
        ) {
            let start = start();
            let mut bucket = AcceptTokenBucket::new(rate(per_second, burst));
            // The model counts exact billionths.
            let (mut now, mut credit) = (0_u64, u128::from(burst) * 1_000_000_000);
            for (step, gap) in gaps.into_iter().enumerate() {
                now += gap;
                let elapsed = if step == 0 { 0 } else { gap };
                credit = (credit + u128::from(elapsed) * u128::from(per_second))
                    .min(u128::from(burst) * 1_000_000_000);
                let answer = bucket.try_admit(start + Duration::from_nanos(now));
                if credit >= 1_000_000_000 {
                    credit -= 1_000_000_000;
                    prop_assert_eq!(answer, Ok(()));
                } else {
                    let wait = answer.expect_err("no credit is left");
                    prop_assert!(wait > Duration::ZERO);
                    let then = start + Duration::from_nanos(now) + wait;
                    prop_assert_eq!(bucket.clone().try_admit(then), Ok(()));
                    prop_assert!(bucket.clone().try_admit(then - Duration::from_nanos(1)).is_err());
                }
            }
        }

        #[test]
        fn no_order_of_instants_panics_or_admits_more(
            per_second in 1_u32..,
            burst in 1_u32..100,
            offsets in prop::collection::vec(0_u64..=1 << 40, 1..100),
        ) {
            let start = start();
            let mut bucket = AcceptTokenBucket::new(rate(per_second, burst));
            let admitted = offsets
                .iter()
                .filter(|&&nanos| bucket.try_admit(start + Duration::from_nanos(nanos)).is_ok())
                .count() as u128;
            let latest = offsets.iter().copied().max().expect("at least one");
            let period = u128::from(latest - offsets[0]);
            let limit = u128::from(burst) + period * u128::from(per_second) / 1_000_000_000;
            prop_assert!(admitted <= limit, "{admitted} of at most {limit}");
        }
    }
}
