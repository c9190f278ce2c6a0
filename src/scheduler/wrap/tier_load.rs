//! The division of work among tiers: the arithmetic of `priority`, without members.

/// The parameters of the division of work, in percent.
#[derive(Clone, Copy, Debug)]
pub(in crate::scheduler) struct TierPolicy {
    pub(in crate::scheduler) overprovisioning: u32,
    pub(in crate::scheduler) panic_threshold: u32,
}

/// The number of counted members of a tier, and of those of them that are available.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::scheduler) struct TierCount {
    pub(in crate::scheduler) available: u64,
    pub(in crate::scheduler) counted: u64,
}

/// The part of the work that a tier gets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::scheduler) struct TierLoad {
    pub(in crate::scheduler) percent: u64,
    pub(in crate::scheduler) panic: bool,
}

impl TierPolicy {
    /// Divides the work; the parts add up to 100 % unless no tier can get any.
    #[cfg(test)]
    fn tier_loads(&self, counts: &[TierCount]) -> Vec<TierLoad> {
        self.limited_loads(counts, &vec![100; counts.len()])
    }

    /// Divides the work among tiers that each get a percentage at most, as long as others can take the rest.
    pub(in crate::scheduler) fn limited_loads(
        &self,
        counts: &[TierCount],
        limits: &[u64],
    ) -> Vec<TierLoad> {
        let limited = counts.iter().zip(limits);
        let healths: Vec<u64> =
            limited.map(|(&count, &limit)| self.tier_health(count).min(limit)).collect();
        if healths.iter().sum::<u64>() >= 100 {
            let mut left = 100;
            let fill = |&health: &u64| {
                let percent = health.min(left);
                left -= percent;
                TierLoad { percent, panic: false }
            };
            return healths.iter().map(fill).collect();
        }
        let panics: Vec<bool> = counts.iter().map(|&count| self.is_in_panic(count)).collect();
        let parts = if panics.iter().all(|&panic| panic) {
            apportion(&counts.iter().map(|count| count.counted).collect::<Vec<_>>())
        } else {
            apportion(&healths)
        };
        let load = |(percent, panic)| TierLoad { percent, panic };
        parts.into_iter().zip(panics).map(load).collect()
    }

    /// Returns the health of a tier in percent.
    fn tier_health(&self, TierCount { available, counted }: TierCount) -> u64 {
        if available == 0 {
            return 0;
        }
        // Rounded down, but at least 1 % for a tier with an available member.
        (u64::from(self.overprovisioning) * available / counted.max(1)).clamp(1, 100)
    }

    fn is_in_panic(&self, TierCount { available, counted }: TierCount) -> bool {
        // available / counted < threshold / 100; a tier without counted members is in panic, too.
        available * 100 < u64::from(self.panic_threshold) * counted.max(1)
    }
}

/// Divides 100 % in proportion to `parts`: whole percents, those lost by rounding down to the
/// largest remainders, among equals to the first. All zero if the parts are.
fn apportion(parts: &[u64]) -> Vec<u64> {
    let sum: u64 = parts.iter().sum();
    if sum == 0 {
        return vec![0; parts.len()];
    }
    let mut percents: Vec<u64> = parts.iter().map(|part| part * 100 / sum).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(parts[i] * 100 % sum));
    let lost = 100 - percents.iter().sum::<u64>();
    order.into_iter().take(lost as usize).for_each(|i| percents[i] += 1);
    percents
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    const DEFAULT: TierPolicy = TierPolicy { overprovisioning: 140, panic_threshold: 50 };

    /// Loads of tiers of 100 members each.
    fn loads(rule: TierPolicy, available: &[u64]) -> Vec<(u64, bool)> {
        let counts: Vec<_> =
            available.iter().map(|&available| TierCount { available, counted: 100 }).collect();
        rule.tier_loads(&counts).into_iter().map(|load| (load.percent, load.panic)).collect()
    }

    // Facts of Envoy's documentation, docs/root/intro/arch_overview/upstream/load_balancing,
    // panic_threshold.rst and priority.rst.
    #[test]
    fn two_tiers_share_work_as_in_envoys_tables() {
        let calm = |p0, p1| vec![(p0, false), (p1, false)];
        assert_eq!(loads(DEFAULT, &[100, 100]), calm(100, 0));
        assert_eq!(loads(DEFAULT, &[72, 72]), calm(100, 0));
        assert_eq!(loads(DEFAULT, &[71, 71]), calm(99, 1));
        assert_eq!(loads(DEFAULT, &[50, 50]), calm(70, 30));
        assert_eq!(loads(DEFAULT, &[50, 100]), calm(70, 30));
        assert_eq!(loads(DEFAULT, &[25, 100]), calm(35, 65));
        assert_eq!(loads(DEFAULT, &[0, 100]), calm(0, 100));
        assert_eq!(loads(DEFAULT, &[25, 25]), [(50, true), (50, true)]);
        assert_eq!(loads(DEFAULT, &[5, 65]), [(7, true), (93, false)]);
    }

    #[test]
    fn three_tiers_fill_up_in_order() {
        let percents = |available: &[u64]| {
            loads(DEFAULT, available).into_iter().map(|(percent, _)| percent).collect::<Vec<_>>()
        };
        assert_eq!(percents(&[100, 100, 100]), [100, 0, 0]);
        assert_eq!(percents(&[72, 72, 100]), [100, 0, 0]);
        assert_eq!(percents(&[71, 1, 100]), [99, 1, 0]);
        assert_eq!(percents(&[50, 50, 100]), [70, 30, 0]);
        assert_eq!(percents(&[25, 25, 100]), [35, 35, 30]);
        assert_eq!(percents(&[25, 0, 100]), [35, 0, 65]);
    }

    #[test]
    fn panic_needs_both_a_bad_tier_and_a_shortage() {
        assert_eq!(loads(DEFAULT, &[25, 100])[0], (35, false), "no shortage");
        assert_eq!(loads(DEFAULT, &[60]), [(100, false)], "a shortage, but no bad tier");
        assert_eq!(loads(DEFAULT, &[49]), [(100, true)]);
        assert_eq!(loads(DEFAULT, &[50]), [(100, false)], "the threshold itself is good");
        assert_eq!(loads(DEFAULT, &[0, 65]), [(0, true), (100, false)]);
    }

    #[test]
    fn with_all_members_down_work_is_divided_by_size_or_not_at_all() {
        assert_eq!(loads(DEFAULT, &[0, 0]), [(50, true), (50, true)]);
        let counts =
            [(0, 1), (0, 0), (0, 2)].map(|(available, counted)| TierCount { available, counted });
        let percents: Vec<_> =
            DEFAULT.tier_loads(&counts).iter().map(|load| load.percent).collect();
        assert_eq!(percents, [33, 0, 67]);
        let calm = TierPolicy { panic_threshold: 0, ..DEFAULT };
        assert_eq!(loads(calm, &[0, 0]), [(0, false), (0, false)]);
        assert_eq!(loads(calm, &[0, 1]), [(0, false), (100, false)]);
        assert_eq!(DEFAULT.tier_loads(&[]), []);
    }

    #[test]
    fn one_available_member_of_a_thousand_gives_a_health_of_1_percent() {
        let calm = TierPolicy { panic_threshold: 0, ..DEFAULT };
        let one = TierCount { available: 1, counted: 1000 };
        assert_eq!(calm.tier_loads(&[one]), [TierLoad { percent: 100, panic: false }]);
    }

    #[test]
    fn parts_always_add_up_to_the_whole() {
        for a in 0..=20 {
            for b in 0..=20 {
                for c in 0..=20 {
                    for overprovisioning in [1, 30, 100, 140, 1000] {
                        let rule = TierPolicy { overprovisioning, ..DEFAULT };
                        let counts = [(a, 20), (b, 20), (c, 20)];
                        let counts =
                            counts.map(|(available, counted)| TierCount { available, counted });
                        let sum: u64 =
                            rule.tier_loads(&counts).iter().map(|load| load.percent).sum();
                        assert_eq!(sum, 100, "{a} {b} {c} {overprovisioning}");
                    }
                }
            }
        }
    }
}
