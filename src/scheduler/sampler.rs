//! Draws random members in proportion to their shares, for all rules that select at random.
//!
//! Shares that differ are drawn by Vose's alias table (M. Vose, "A linear algorithm for generating
//! random numbers with a given distribution", 1991): built in O(n) with integers, drawn in O(1)
//! from one random word. Equal shares need only the list of eligible members.

use std::hint::select_unpredictable;

use crate::backend::{MAX_BACKENDS, Members, PickView};
use crate::scheduler::hashing::scale_to_range;
use crate::scheduler::{CompileError, PickContext, Rng};

/// Draws the positions of eligible members.
#[derive(Debug)]
pub(in crate::scheduler) enum WeightedSampler {
    /// All members are eligible and have the same share: the number of members.
    AllEqual(usize),
    /// The eligible members have the same share: their positions.
    SomeEqual(Box<[u32]>),
    Weighted {
        /// A column for each member of the list, with or without a share.
        columns: Box<[AliasColumn]>,
        /// The positions of the members with a share.
        eligible: Box<[u32]>,
    },
}

/// A column of the alias table: below the cut it belongs to the member at its own position, above
/// the cut to its alias. The upper 48 bits hold the cut, in units of 2^-48 of the column, the lower
/// 16 bits the alias. One word instead of two, because a pick reads two columns and waits for
/// memory.
#[derive(Clone, Copy, Debug)]
pub(in crate::scheduler) struct AliasColumn(u64);

impl AliasColumn {
    /// Makes a column that belongs to its own member only.
    fn whole(place: usize) -> Self {
        Self(!u64::from(u16::MAX) | place as u64)
    }

    /// Makes a column of which `part / whole` belongs to its own member and the rest to `alias`.
    fn split(part: u64, whole: u64, alias: usize) -> Self {
        let cut = ((u128::from(part) << 64) / u128::from(whole)) as u64;
        Self(cut & !u64::from(u16::MAX) | alias as u64)
    }

    fn cut(self) -> u64 {
        self.0 >> u16::BITS
    }

    fn alias(self) -> usize {
        usize::from(self.0 as u16)
    }
}

/// A column holds a position in 16 bits.
const _: () = assert!(MAX_BACKENDS <= 1 << u16::BITS);

/// The number of further draws if no drawn member is usable.
const MAX_REDRAWS: usize = 4;
/// The number of further draws if the second draw hits the first member again.
const MAX_DISTINCT_REDRAWS: usize = 4;

impl WeightedSampler {
    /// Creates a sampler; fails for more members than a set can have, which only the list of a
    /// wrapper can hold.
    pub(in crate::scheduler) fn new(members: &Members) -> Result<Self, CompileError> {
        if members.len() > MAX_BACKENDS {
            return Err(CompileError::TooManyMembers { members: members.len(), max: MAX_BACKENDS });
        }
        let eligible = || (0..).zip(members).filter(|(_, member)| member.share() != 0);
        let places: Box<[u32]> = eligible().map(|(position, _)| position).collect();
        let mut shares = eligible().map(|(_, member)| member.share());
        let first = shares.next();
        Ok(if shares.any(|share| Some(share) != first) {
            Self::Weighted { columns: build_alias_columns(members), eligible: places }
        } else if places.len() == members.len() {
            Self::AllEqual(places.len())
        } else {
            Self::SomeEqual(places)
        })
    }

    /// Returns the number of members that can be drawn.
    pub(in crate::scheduler) fn drawable_count(&self) -> usize {
        match self {
            Self::AllEqual(len) => *len,
            Self::SomeEqual(places) => places.len(),
            Self::Weighted { eligible, .. } => eligible.len(),
        }
    }

    /// Returns the `k`-th member that can be drawn.
    #[inline]
    pub(in crate::scheduler) fn drawable(&self, k: usize) -> Option<usize> {
        match self {
            Self::AllEqual(len) => (k < *len).then_some(k),
            Self::SomeEqual(eligible) | Self::Weighted { eligible, .. } => {
                eligible.get(k).map(|&place| place as usize)
            }
        }
    }

    /// Draws a member in proportion to share; `None` if no member is eligible.
    #[inline]
    pub(in crate::scheduler) fn draw(&self, rng: &mut Rng) -> Option<usize> {
        let random = rng.next_u64();
        match self {
            Self::Weighted { columns, .. } => draw_from_columns(columns, random),
            _ => self.drawable(scale_to_range(random, self.drawable_count())),
        }
    }

    /// Draws two members, each in proportion to share, which may be equal.
    // Always inlined, as below: a pair that is returned by a call goes through memory.
    #[inline(always)]
    pub(in crate::scheduler) fn draw_pair(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let Self::AllEqual(len) = self else { return Some((self.draw(rng)?, self.draw(rng)?)) };
        // One random word for both: the lower half of the product makes the second draw.
        let wide = u128::from(rng.next_u64()) * *len as u128;
        (*len > 0).then(|| ((wide >> 64) as usize, scale_to_range(wide as u64, *len)))
    }

    /// Draws two members, each in proportion to share, which differ if there are two.
    #[inline(always)]
    pub(in crate::scheduler) fn draw_distinct_pair(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        match self {
            Self::AllEqual(len) => distinct_pair_below(*len, rng),
            Self::SomeEqual(places) => {
                let (first, second) = distinct_pair_below(places.len(), rng)?;
                Some((*places.get(first)? as usize, *places.get(second)? as usize))
            }
            Self::Weighted { columns, .. } => {
                let first = draw_from_columns(columns, rng.next_u64())?;
                let second = draw_from_columns(columns, rng.next_u64())?;
                Some((first, if first == second { self.draw_other(first, rng)? } else { second }))
            }
        }
    }

    /// Draws another member than `first` after a draw that hit it again. If further draws hit it,
    /// too, because it holds nearly all of the share, draws any of the others with equal
    /// probability.
    #[cold]
    fn draw_other(&self, first: usize, rng: &mut Rng) -> Option<usize> {
        for _ in 0..MAX_DISTINCT_REDRAWS {
            let second = self.draw(rng)?;
            if second != first {
                return Some(second);
            }
        }
        let others = self.drawable_count().checked_sub(1)?;
        let other = scale_to_range(rng.next_u64(), others);
        // The first itself if there is no other, otherwise the drawn place, counted without the
        // first.
        let before = (0..others).take_while(|&k| self.drawable(k) != Some(first)).count();
        self.drawable(if other >= before && others > 0 { other + 1 } else { other })
    }

    /// Draws a usable member: repeats the draw a few times, then walks the list from the last draw.
    #[inline]
    pub(in crate::scheduler) fn pick_usable(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let mut drawn = self.draw(cx.rng())?;
        for _ in 0..MAX_REDRAWS {
            if cx.is_usable(drawn) {
                return Some(drawn);
            }
            drawn = self.draw(cx.rng())?;
        }
        first_usable_from(cx, drawn)
    }

    /// Draws two members and returns the better by `is_first_better`, or the usable one if the
    /// other is not usable.
    #[inline]
    pub(in crate::scheduler) fn pick_better_of_two(
        &self,
        cx: &mut PickContext<'_>,
        is_first_better: impl Fn(PickView<'_>, PickView<'_>) -> bool,
    ) -> Option<usize> {
        let members = cx.members();
        let better = |first, second| {
            let is_first = is_first_better(members.pick_view(first)?, members.pick_view(second)?);
            // The processor would mispredict a branch every other time.
            Some(select_unpredictable(is_first, first, second))
        };
        // Every drawn member is eligible, and nothing else has to be checked.
        if cx.is_unrestricted() && !members.has_limits() {
            let (first, second) = self.draw_distinct_pair(cx.rng())?;
            return better(first, second);
        }
        self.pick_better_usable_of_two(cx, better)
    }

    #[inline(never)]
    fn pick_better_usable_of_two(
        &self,
        cx: &mut PickContext<'_>,
        better: impl Fn(usize, usize) -> Option<usize>,
    ) -> Option<usize> {
        let mut last = 0;
        for _ in 0..=MAX_REDRAWS {
            let (first, second) = self.draw_distinct_pair(cx.rng())?;
            match (cx.is_usable(first), cx.is_usable(second)) {
                (true, true) => return better(first, second),
                (true, false) => return Some(first),
                (false, true) => return Some(second),
                (false, false) => last = second,
            }
        }
        first_usable_from(cx, last)
    }
}

/// Draws two different numbers below `len`, in any order; 0 twice if `len` is 1.
#[inline]
fn distinct_pair_below(len: usize, rng: &mut Rng) -> Option<(usize, usize)> {
    // One random word for both: the lower half of the product makes the second draw, among one
    // number fewer, counted without the first.
    let wide = u128::from(rng.next_u64()) * len as u128;
    let first = (wide >> 64) as usize;
    let second = scale_to_range(wide as u64, len.checked_sub(1)?);
    Some((first, if second >= first && len > 1 { second + 1 } else { second }))
}

/// Returns the first usable member from a position on.
#[cold]
fn first_usable_from(cx: &PickContext<'_>, start: usize) -> Option<usize> {
    (start..cx.members().len()).chain(0..start).find(|&position| cx.is_usable(position))
}

#[inline]
fn draw_from_columns(columns: &[AliasColumn], random: u64) -> Option<usize> {
    // The upper half of the product selects the column, the lower half the point in it.
    let wide = u128::from(random) * columns.len() as u128;
    let place = (wide >> 64) as usize;
    let column = columns.get(place)?;
    let is_own = (wide as u64) >> u16::BITS < column.cut();
    Some(select_unpredictable(is_own, place, column.alias()))
}

/// Builds Vose's table. Each column holds the sum of all shares, and member `i` fills `share * n`
/// of the columns, so that all numbers are integers and no remainder is left.
fn build_alias_columns(members: &Members) -> Box<[AliasColumn]> {
    let (n, sum) = (members.len() as u64, members.share_sum());
    let mut rest: Vec<u64> = members.iter().map(|m| u64::from(m.share()) * n).collect();
    let mut columns: Box<[AliasColumn]> = (0..members.len()).map(AliasColumn::whole).collect();
    let (mut large, mut small): (Vec<usize>, Vec<usize>) =
        (0..rest.len()).partition(|&k| rest[k] >= sum);
    while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
        columns[taker] = AliasColumn::split(rest[taker], sum, giver);
        rest[giver] -= sum - rest[taker];
        if rest[giver] < sum {
            large.pop();
            small.push(giver);
        }
    }
    columns
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;
    use crate::scheduler::RoundRobin;
    use crate::scheduler::testing::{assert_near, balancer};

    fn sampler(weights: &[u32]) -> WeightedSampler {
        WeightedSampler::new(balancer(RoundRobin, weights).snapshot().members()).expect("room")
    }

    /// Returns the probability of each member according to the table.
    fn probabilities(sampler: &WeightedSampler, members: usize) -> Vec<f64> {
        let WeightedSampler::Weighted { columns, .. } = sampler else { panic!("a table") };
        let mut of = vec![0.0; members];
        for (place, column) in columns.iter().enumerate() {
            let own = column.cut() as f64 / 2f64.powi(48);
            of[place] += own / columns.len() as f64;
            of[column.alias()] += (1.0 - own) / columns.len() as f64;
        }
        of
    }

    #[test]
    fn the_table_holds_each_member_in_exact_proportion() {
        let mut rng = Rng::with_seed(1);
        for n in [2, 3, 7, 100, 1000] {
            let weights: Vec<u32> = (0..n).map(|_| rng.below(65_536) as u32).collect();
            let sum: u32 = weights.iter().sum();
            let want: Vec<f64> = weights.iter().map(|&w| f64::from(w) / f64::from(sum)).collect();
            assert_near(&probabilities(&sampler(&weights), n), &want, 1e-12);
        }
    }

    #[test]
    fn extreme_shares_keep_their_proportion() {
        let got = probabilities(&sampler(&[65_535, 1, 0, 1]), 4);
        assert_near(&got, &[65_535.0 / 65_537.0, 1.0 / 65_537.0, 0.0, 1.0 / 65_537.0], 1e-12);
    }

    #[test]
    fn a_member_without_a_share_is_never_drawn() {
        let mut rng = Rng::with_seed(5);
        for weights in [&[0, 3, 0, 1][..], &[0, 2, 2, 0], &[0, 0, 7]] {
            let sampler = sampler(weights);
            for _ in 0..1000 {
                let (first, second) = sampler.draw_pair(&mut rng).expect("an eligible member");
                assert!(weights[first] != 0 && weights[second] != 0, "{weights:?}");
            }
        }
    }

    #[test]
    fn two_draws_are_never_the_same_member() {
        let mut rng = Rng::with_seed(2);
        for weights in [&[1, 1][..], &[1, 1, 1], &[1000, 1], &[0, 5, 0, 1], &[65_535, 1, 1]] {
            let sampler = sampler(weights);
            for _ in 0..1000 {
                let (first, second) = sampler.draw_distinct_pair(&mut rng).expect("two members");
                assert_ne!(first, second, "{weights:?}");
                assert!(weights[first] != 0 && weights[second] != 0, "{weights:?}");
            }
        }
    }

    #[test]
    fn all_ordered_pairs_of_equal_members_are_equally_likely() {
        let (sampler, mut rng) = (sampler(&[1; 4]), Rng::with_seed(3));
        let mut counts = [[0u32; 4]; 4];
        for _ in 0..120_000 {
            let (first, second) = sampler.draw_distinct_pair(&mut rng).expect("two members");
            counts[first][second] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let want = if first == second { 0..1 } else { 9_600..10_400 };
                assert!(want.contains(&count), "{first},{second}: {count}");
            }
        }
    }

    #[test]
    fn a_single_member_is_both_draws_and_an_empty_list_has_none() {
        let mut rng = Rng::with_seed(4);
        assert_eq!(sampler(&[0, 7]).draw_distinct_pair(&mut rng), Some((1, 1)));
        assert_eq!(sampler(&[0, 0]).draw_distinct_pair(&mut rng), None);
        assert_eq!(sampler(&[]).draw(&mut rng), None);
    }
}
