//! Random members in proportion to their shares: what the rules that draw have in common.
//!
//! Shares that differ are drawn by Vose's alias table (M. Vose, "A linear algorithm for generating
//! random numbers with a given distribution", 1991): built in O(n) with integers, drawn in O(1)
//! from one random word. Equal shares need no table but the list of who takes part.

use std::hint::select_unpredictable;
use std::sync::Arc;

use super::hash::scale;
use super::{PickContext, Rng};
use crate::backend::{Account, Member, Members};

/// Draws eligible members.
///
/// What a draw gives is up to the rule: a position, or with it whatever the rule compares, so that
/// one look into memory gives both.
#[derive(Debug)]
pub(super) enum Sampler<P = u32> {
    /// Everybody has the same share.
    Equal(Box<[P]>),
    /// One column for each eligible member.
    Weighted(Box<[Column<P>]>),
}

/// What a draw gives.
pub(super) trait Place: Clone {
    /// Where the member stands in the list.
    fn position(&self) -> usize;
}

impl Place for u32 {
    #[inline]
    fn position(&self) -> usize {
        *self as usize
    }
}

/// A member with what its comparison with another reads.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) account: Arc<Account>,
    pub(super) share: u32,
    position: u32,
}

impl Slot {
    pub(super) fn new(position: u32, member: &Member) -> Self {
        Self { account: Arc::clone(member.account()), share: member.share(), position }
    }
}

impl Place for Slot {
    #[inline]
    fn position(&self) -> usize {
        self.position as usize
    }
}

/// A column of the alias table: `own` below the cut, `other` above it.
#[derive(Debug)]
pub(super) struct Column<P> {
    /// In units of 2^-64 of the column.
    cut: u64,
    own: P,
    other: P,
}

/// How often a draw that hit nobody usable is repeated.
const REDRAWS: usize = 4;
/// How often a second draw that hit the first member again is repeated.
const DISTINCT_REDRAWS: usize = 4;

impl Sampler {
    /// Draws positions.
    pub(super) fn new(members: &Members) -> Self {
        Self::with(members, |position, _| position)
    }
}

impl<P: Place> Sampler<P> {
    /// Draws what `place` makes of a member and its position.
    pub(super) fn with(members: &Members, place: impl Fn(u32, &Member) -> P) -> Self {
        let eligible = || (0..).zip(members).filter(|(_, member)| member.share() != 0);
        let places = eligible().map(|(position, member)| place(position, member)).collect();
        let shares: Vec<u32> = eligible().map(|(_, member)| member.share()).collect();
        if shares.windows(2).all(|pair| pair[0] == pair[1]) {
            Self::Equal(places)
        } else {
            Self::Weighted(columns(&places, &shares, members.share_sum()))
        }
    }

    /// How many members can be drawn.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Equal(places) => places.len(),
            Self::Weighted(columns) => columns.len(),
        }
    }

    /// The `k`-th member that can be drawn.
    #[inline]
    pub(super) fn nth(&self, k: usize) -> Option<&P> {
        match self {
            Self::Equal(places) => places.get(k),
            Self::Weighted(columns) => columns.get(k).map(|column| &column.own),
        }
    }

    /// One member, in proportion to share; `None` where nobody is eligible.
    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> Option<&P> {
        let random = rng.next_u64();
        match self {
            Self::Equal(places) => places.get(scale(random, places.len())),
            Self::Weighted(columns) => draw_column(columns, random),
        }
    }

    /// Two members, each in proportion to share and, where there are two, not the same.
    #[inline]
    pub(super) fn draw_two(&self, rng: &mut Rng) -> Option<(&P, &P)> {
        match self {
            Self::Equal(places) => {
                // One word for both: what is left of it below the first choice makes the second,
                // among one fewer, counted past the first.
                let len = places.len();
                let wide = u128::from(rng.next_u64()) * len as u128;
                let first = (wide >> 64) as usize;
                let second = scale(wide as u64, len.checked_sub(1)?);
                let second = if second >= first && len > 1 { second + 1 } else { second };
                Some((places.get(first)?, places.get(second)?))
            }
            Self::Weighted(columns) => {
                let first = draw_column(columns, rng.next_u64())?;
                for _ in 0..DISTINCT_REDRAWS {
                    let second = draw_column(columns, rng.next_u64())?;
                    if second.position() != first.position() {
                        return Some((first, second));
                    }
                }
                Some((first, another(columns, first, rng)))
            }
        }
    }

    /// A usable member: redraws a few times, then walks on from the last one drawn.
    #[inline]
    pub(super) fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let mut drawn = self.draw(cx.rng())?.position();
        for _ in 0..REDRAWS {
            if cx.usable(drawn) {
                return Some(drawn);
            }
            drawn = self.draw(cx.rng())?.position();
        }
        walk(cx, drawn)
    }

    /// The better of two, by a rule that says whether the first of them may stay; alone, if the
    /// other is not usable.
    #[inline]
    pub(super) fn pick_better(
        &self,
        cx: &mut PickContext<'_>,
        first_stays: impl Fn(&P, &P) -> bool,
    ) -> Option<usize> {
        // Whoever can be drawn is eligible; with nothing else to ask, the first two will do.
        let plain = cx.is_plain() && !cx.members().is_limited();
        let mut last = 0;
        for _ in 0..=REDRAWS {
            let (one, other) = self.draw_two(cx.rng())?;
            let [first, second] = [one.position(), other.position()];
            match (plain || cx.usable(first), plain || cx.usable(second)) {
                // A coin's toss to the processor, which would guess wrong every other time.
                (true, true) => {
                    return Some(select_unpredictable(first_stays(one, other), first, second));
                }
                (true, false) => return Some(first),
                (false, true) => return Some(second),
                (false, false) => last = second,
            }
        }
        walk(cx, last)
    }
}

/// The first usable member from a position on.
#[cold]
fn walk(cx: &PickContext<'_>, start: usize) -> Option<usize> {
    (start..cx.members().len()).chain(0..start).find(|&position| cx.usable(position))
}

/// One member holds nearly all of the share: takes any of the others, all alike.
#[cold]
fn another<'a, P: Place>(columns: &'a [Column<P>], first: &'a P, rng: &mut Rng) -> &'a P {
    let own = columns.partition_point(|column| column.own.position() < first.position());
    let other = scale(rng.next_u64(), columns.len() - 1);
    let other = if other >= own && columns.len() > 1 { other + 1 } else { other };
    &columns[other].own
}

#[inline]
fn draw_column<P>(columns: &[Column<P>], random: u64) -> Option<&P> {
    // The upper half of the product chooses the column, the lower half the place in it.
    let wide = u128::from(random) * columns.len() as u128;
    let column = columns.get((wide >> 64) as usize)?;
    Some(select_unpredictable((wide as u64) < column.cut, &column.own, &column.other))
}

/// Vose's table. Each column holds `sum`, and member `i` has `share * n` to spread over columns, so
/// that all of it is integers and nothing is left over.
fn columns<P: Place>(places: &[P], shares: &[u32], sum: u64) -> Box<[Column<P>]> {
    let n = places.len() as u64;
    let mut rest: Vec<u64> = shares.iter().map(|&share| u64::from(share) * n).collect();
    let own = |place: &P| Column { cut: u64::MAX, own: place.clone(), other: place.clone() };
    let mut columns: Box<[Column<P>]> = places.iter().map(own).collect();
    let (mut large, mut small): (Vec<usize>, Vec<usize>) =
        (0..rest.len()).partition(|&k| rest[k] >= sum);
    while let (Some(&giver), Some(taker)) = (large.last(), small.pop()) {
        columns[taker].cut = ((u128::from(rest[taker]) << 64) / u128::from(sum)) as u64;
        columns[taker].other = places[giver].clone();
        rest[giver] -= sum - rest[taker];
        if rest[giver] < sum {
            large.pop();
            small.push(giver);
        }
    }
    columns
}

#[cfg(all(test, not(lvs_loom)))]
pub(super) mod trial {
    //! Small worlds for the tests of schedulers.

    use crate::scheduler::{Flow, Rng, Scheduler};
    use crate::{BackendId, BackendSet, Balancer, Lease, Spec};

    /// Members of these weights at these positions; a member's name is its position.
    pub(in crate::scheduler) fn balancer(
        rule: impl Scheduler + 'static,
        weights: &[u32],
    ) -> Balancer<()> {
        let set = BackendSet::new();
        set.edit(|edit| {
            for (position, &weight) in weights.iter().enumerate().rev() {
                edit.insert(Spec::new(id(position), ()).weight(weight))?;
            }
            Ok(())
        })
        .expect("sound specs");
        Balancer::new(&set, rule).expect("a rule that takes any set")
    }

    pub(in crate::scheduler) fn id(position: usize) -> BackendId {
        BackendId::from(position.to_string().as_str())
    }

    /// The position that the lease's name stands for.
    pub(in crate::scheduler) fn position(lease: &Lease<()>) -> usize {
        lease.id().as_str().parse().expect("a position")
    }

    /// Where the next picks go; each lease ends before the next one is made.
    pub(in crate::scheduler) fn sequence(balancer: &Balancer<()>, picks: usize) -> Vec<usize> {
        let mut rng = Rng::with_seed(0x5eed);
        (0..picks)
            .map(|_| position(&balancer.pick_with(&Flow::new(), &mut rng).expect("a pick")))
            .collect()
    }

    /// What part of the next picks each member gets, in percent.
    pub(in crate::scheduler) fn percentages(balancer: &Balancer<()>, picks: usize) -> Vec<f64> {
        let mut counts = vec![0; balancer.snapshot().members().len()];
        sequence(balancer, picks).into_iter().for_each(|position| counts[position] += 1);
        counts.into_iter().map(|count: u32| f64::from(count) * 100.0 / picks as f64).collect()
    }

    /// Compares percentages.
    #[track_caller]
    pub(in crate::scheduler) fn assert_near(got: &[f64], want: &[f64], tolerance: f64) {
        assert_eq!(got.len(), want.len());
        let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() <= tolerance);
        assert!(near, "{got:?} is not {want:?} +/- {tolerance}");
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::trial::{assert_near, balancer};
    use super::*;
    use crate::scheduler::RoundRobin;

    fn sampler(weights: &[u32]) -> Sampler {
        Sampler::new(balancer(RoundRobin, weights).snapshot().members())
    }

    /// The probability of each member, worked out from the table.
    fn probabilities(sampler: &Sampler, members: usize) -> Vec<f64> {
        let Sampler::Weighted(columns) = sampler else { panic!("a table") };
        let mut of = vec![0.0; members];
        for column in columns {
            let own = column.cut as f64 / 2f64.powi(64);
            of[column.own as usize] += own / columns.len() as f64;
            of[column.other as usize] += (1.0 - own) / columns.len() as f64;
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
    fn two_draws_are_never_the_same_member() {
        let mut rng = Rng::with_seed(2);
        for weights in [&[1, 1][..], &[1, 1, 1], &[1000, 1], &[0, 5, 0, 1], &[65_535, 1, 1]] {
            let sampler = sampler(weights);
            for _ in 0..1000 {
                let (first, second) = sampler.draw_two(&mut rng).expect("two members");
                assert_ne!(first, second, "{weights:?}");
                let [first, second] = [first.position(), second.position()];
                assert!(weights[first] != 0 && weights[second] != 0, "{weights:?}");
            }
        }
    }

    #[test]
    fn all_ordered_pairs_of_equal_members_are_equally_likely() {
        let (sampler, mut rng) = (sampler(&[1; 4]), Rng::with_seed(3));
        let mut counts = [[0u32; 4]; 4];
        for _ in 0..120_000 {
            let (first, second) = sampler.draw_two(&mut rng).expect("two members");
            counts[first.position()][second.position()] += 1;
        }
        for (first, row) in counts.iter().enumerate() {
            for (second, &count) in row.iter().enumerate() {
                let want = if first == second { 0..1 } else { 9_600..10_400 };
                assert!(want.contains(&count), "{first},{second}: {count}");
            }
        }
    }

    #[test]
    fn one_member_is_both_draws_and_none_is_none() {
        let mut rng = Rng::with_seed(4);
        assert_eq!(sampler(&[0, 7]).draw_two(&mut rng), Some((&1, &1)));
        assert_eq!(sampler(&[0, 0]).draw_two(&mut rng), None);
        assert_eq!(sampler(&[]).draw(&mut rng), None);
    }
}
