//! How fast new connections may come: a token bucket.

use std::time::{Duration, Instant};

/// A pace of new connections: so many a second, and so many at once.
///
/// In any stretch of time `t` at most `burst + per_second * t` connections are let in. Where
/// nothing came for a while, `burst` may come at once; after that they go in at an even pace.
///
/// # Examples
/// ```
/// use lvs::forward::ConnectionRate;
///
/// let rate = ConnectionRate::per_second(1000).burst(50);
/// assert_eq!(rate.connections_per_second(), 1000);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct ConnectionRate {
    per_second: u32,
    burst: u32,
}

impl ConnectionRate {
    /// So many connections in a second, and as many at once; 0 counts as 1.
    pub const fn per_second(connections: u32) -> Self {
        let connections = at_least_one(connections);
        Self { per_second: connections, burst: connections }
    }

    /// How many may come at once after a quiet time; 0 counts as 1. Default: a second's worth.
    pub const fn burst(self, connections: u32) -> Self {
        Self { burst: at_least_one(connections), ..self }
    }

    /// The connections that are let in each second in the long run.
    #[must_use]
    pub const fn connections_per_second(&self) -> u32 {
        self.per_second
    }

    /// The connections that are let in at once after a quiet time.
    #[must_use]
    pub const fn max_burst(&self) -> u32 {
        self.burst
    }
}

const fn at_least_one(connections: u32) -> u32 {
    if connections == 0 { 1 } else { connections }
}

/// What is left of a [`ConnectionRate`] at one moment.
///
/// Exact: credit is counted in billionths of a connection, and a rate of `n` a second earns `n` of
/// them each nanosecond, so nothing is ever rounded away. Some 12 ns a call.
///
/// Has one owner. Workers that share one pace keep it behind a lock: a share for each would refuse
/// at one worker what another has left over.
#[derive(Clone, Debug)]
pub(in crate::forward) struct AcceptTokenBucket {
    rate: ConnectionRate,
    /// Billionths of a connection, never more than the burst.
    credit: u64,
    /// The latest moment that has been credited.
    credited_until: Option<Instant>,
}

/// The price of a connection.
const CONNECTION_CREDIT: u64 = 1_000_000_000;

impl AcceptTokenBucket {
    /// Starts with a full burst.
    pub(in crate::forward) const fn new(rate: ConnectionRate) -> Self {
        Self { rate, credit: rate.burst as u64 * CONNECTION_CREDIT, credited_until: None }
    }

    /// Takes one connection in, or says how long to wait before asking again.
    ///
    /// Moments may come in any order; one that lies before the latest earns nothing.
    ///
    /// # Errors
    /// The wait, never zero, after which a connection is let in unless another takes its place.
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
        // A moment of the past waits until the credited one first.
        Err(credited.saturating_duration_since(now).saturating_add(Duration::from_nanos(wait)))
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    #[test]
    fn a_burst_comes_at_once_and_then_one_each_interval() {
        let start = start();
        let mut rate = AcceptTokenBucket::new(ConnectionRate::per_second(3).burst(2));
        assert_eq!([rate.try_admit(start), rate.try_admit(start)], [Ok(()), Ok(())]);
        let third = Duration::from_nanos(333_333_334);
        assert_eq!(rate.try_admit(start), Err(third));
        assert_eq!(
            rate.try_admit(start + third - Duration::from_nanos(1)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(rate.try_admit(start + third), Ok(()));
        // The two billionths too many are not lost: three connections take one second.
        assert_eq!(rate.try_admit(start + Duration::from_nanos(666_666_667)), Ok(()));
        assert_eq!(rate.try_admit(start + Duration::from_secs(1)), Ok(()));
        assert_eq!(rate.try_admit(start + Duration::from_secs(1)), Err(third));
    }

    #[test]
    fn a_long_quiet_time_earns_no_more_than_the_burst() {
        let start = start();
        let mut rate = AcceptTokenBucket::new(ConnectionRate::per_second(u32::MAX).burst(5));
        for moment in [start, start + Duration::from_secs(1 << 32)] {
            let taken = (0..10).filter(|_| rate.try_admit(moment).is_ok()).count();
            assert_eq!(taken, 5);
        }
    }

    #[test]
    fn a_moment_of_the_past_earns_nothing_and_waits_for_the_present() {
        let start = start();
        let late = start + Duration::from_secs(10);
        let mut rate = AcceptTokenBucket::new(ConnectionRate::per_second(1).burst(1));
        assert_eq!(rate.try_admit(late), Ok(()));
        assert_eq!(rate.try_admit(start), Err(Duration::from_secs(11)));
        assert_eq!(rate.try_admit(late), Err(Duration::from_secs(1)));
        assert_eq!(rate.try_admit(late + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn zero_counts_as_one() {
        let rate = ConnectionRate::per_second(0).burst(0);
        assert_eq!((rate.connections_per_second(), rate.max_burst()), (1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        /// Against the definition: never more than `burst + rate * t` in any stretch from the start,
        /// never fewer than an even pace allows, and the wait is neither too long nor too short.
        #[test]
        fn the_pace_is_kept_to_the_nanosecond(
            per_second in 1_u32..=2_000_000,
            burst in 1_u32..=20,
            gaps in prop::collection::vec(0_u64..=3_000_000, 1..200),
        ) {
            let start = start();
            let mut rate = AcceptTokenBucket::new(ConnectionRate::per_second(per_second).burst(burst));
            // The model in exact billionths, from the beginning of time with every step.
            let (mut now, mut credit) = (0_u64, u128::from(burst) * 1_000_000_000);
            for (step, gap) in gaps.into_iter().enumerate() {
                now += gap;
                let elapsed = if step == 0 { 0 } else { gap };
                credit = (credit + u128::from(elapsed) * u128::from(per_second))
                    .min(u128::from(burst) * 1_000_000_000);
                let answer = rate.try_admit(start + Duration::from_nanos(now));
                if credit >= 1_000_000_000 {
                    credit -= 1_000_000_000;
                    prop_assert_eq!(answer, Ok(()));
                } else {
                    let wait = answer.expect_err("no credit is left");
                    prop_assert!(wait > Duration::ZERO);
                    let then = start + Duration::from_nanos(now) + wait;
                    prop_assert_eq!(rate.clone().try_admit(then), Ok(()));
                    prop_assert!(rate.clone().try_admit(then - Duration::from_nanos(1)).is_err());
                }
            }
        }

        #[test]
        fn no_order_of_moments_panics_or_lets_more_in(
            rate in any::<u32>(),
            burst in 0_u32..100,
            moments in prop::collection::vec(0_u64..=1 << 40, 1..100),
        ) {
            let start = start();
            let mut bucket = AcceptTokenBucket::new(ConnectionRate::per_second(rate).burst(burst));
            let taken = moments
                .iter()
                .filter(|&&at| bucket.try_admit(start + Duration::from_nanos(at)).is_ok())
                .count() as u128;
            let latest = moments.iter().copied().max().expect("at least one");
            let stretch = u128::from(latest - moments[0]);
            let most = u128::from(burst.max(1)) + stretch * u128::from(rate.max(1)) / 1_000_000_000;
            prop_assert!(taken <= most, "{taken} of at most {most}");
        }
    }
}
