//! Priority tiers with overflow and panic: `priority`.

use crate::backend::{Member, Members};
use crate::scheduler::hashing::{mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    NESTED_SCHEDULER, ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
    SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::wrap::tier_load::{TierCount, TierLoad, TierPolicy};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `priority`: tier 0 serves while it can, the next tier takes what it cannot.
///
/// Choose it for servers that should be idle while the others are well: another rack, another
/// site, a sorry server. It wraps a rule that chooses inside each [tier](Member::tier); every tier
/// has a picker of its own. The arithmetic is that of Envoy's priority levels and panic threshold,
/// in whole percents.
///
/// # Which tier
/// *Counted* are members that the operator wants to serve: of a weight above 0, neither draining
/// nor disabled. *Available* are those of them that are up. Members count, weights do not. Members
/// at their connection limit are available.
///
/// 1. A tier's *health* is `overprovisioning * available / counted`, at most 100 %. With the
///    default of 140 % a tier can lose 28 % of its members before any work leaves it.
/// 2. Work fills the tiers in order, each up to its health, until all of it is placed.
/// 3. If the healths do not add up to 100 %, each tier gets its part of their sum. A tier of which
///    less than the *panic threshold* is available is then in panic: its health checks are not
///    believed, all its counted members get work by their full weight, down or not.
/// 4. If every tier is in panic, each gets work by the number of its counted members.
///
/// | available in tier 0 | in tier 1 | work for tier 0 | for tier 1 |
/// |---|---|---|---|
/// | 72 % | 72 % | 100 % | |
/// | 71 % | 71 % | 99 % | 1 % |
/// | 50 % | 50 % | 70 % | 30 % |
/// | 25 % | 100 % | 35 % | 65 % |
/// | 25 % | 25 % | 50 %, panic | 50 %, panic |
/// | 5 % | 65 % | 7 %, panic | 93 % |
///
/// A flow with a key or source finds its tier by a hash of it, so it stays there while the parts
/// stay; any other by chance. Where the inner rule finds nobody in the tier (limits, members tried
/// before) the next tiers are asked in order, then those before it.
///
/// A single tier is what the inner rule makes of it, save for panic. Members of weight 0 never get
/// new work. An empty set has no tiers. In panic a set is served even if all of it is down;
/// [`with_panic_threshold(0)`](Self::panic_threshold) ends that.
///
/// # Cost
/// The inner pick and about 4 ns, 3 ns more while several tiers have work; one more inner pick for
/// each tier that finds nobody. Memory: a copy of each member (64 bytes), 8 bytes for its
/// position, and the inner tables. Compiling is one pass over the set for each tier, at most 256.
///
/// # Examples
/// ```
/// use lvs::scheduler::{PriorityTiers, RoundRobin};
/// use lvs::{BackendSet, Balancer, Flow, Health, PickError, Spec};
///
/// let set = BackendSet::new();
/// set.insert(Spec::new("spare", ()).tier(1))?;
/// set.insert(Spec::new("main", ()))?;
/// let rule = PriorityTiers::new(RoundRobin).panic_threshold(0)?;
/// let balancer = Balancer::new(&set, rule)?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "main");
///
/// set.set_health(&"main".into(), Health::Down)?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "spare");
///
/// set.set_health(&"spare".into(), Health::Down)?;
/// assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::AllDown);
/// balancer.set_scheduler(PriorityTiers::new(RoundRobin))?;
/// assert!(balancer.pick(&Flow::new()).is_ok(), "panic: better than nobody");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PriorityTiers<S> {
    inner: S,
    policy: TierPolicy,
}

impl<S: Scheduler> PriorityTiers<S> {
    /// Tiers that each choose by `inner`.
    #[must_use]
    pub const fn new(inner: S) -> Self {
        Self { inner, policy: TierPolicy { overprovisioning: 140, panic_threshold: 50 } }
    }

    /// Sets the work that a member can take, in percent of its even part: at 140 a tier of which 5 of
    /// 7 members are left still takes everything. Below 100, work leaves even a healthy tier.
    /// Default: 140.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a percentage that is not within 1..=10000.
    pub fn overprovisioning(self, percent: u32) -> Result<Self, SchedulerParameterError> {
        let overprovisioning = OVERPROVISIONING.check_integer("priority", percent)?;
        Ok(Self { policy: TierPolicy { overprovisioning, ..self.policy }, ..self })
    }

    /// Sets the percentage of available members below which a tier disregards health; 0 means
    /// never. Default: 50.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a percentage above 100.
    pub fn panic_threshold(self, percent: u32) -> Result<Self, SchedulerParameterError> {
        let panic_threshold = PANIC_THRESHOLD.check_integer("priority", percent)?;
        Ok(Self { policy: TierPolicy { panic_threshold, ..self.policy }, ..self })
    }
}

const OVERPROVISIONING: SchedulerParameter = SchedulerParameter::new(
    "overprovisioning",
    ParameterKind::Integer { min: 1, max: 10_000 },
    Some("140"),
    "The work that a server can take, in percent of its even part",
);
const PANIC_THRESHOLD: SchedulerParameter = SchedulerParameter::new(
    "panic",
    ParameterKind::Integer { min: 0, max: 100 },
    Some("50"),
    "The percentage of available servers below which a tier disregards health; 0 means never",
);

impl PriorityTiers<()> {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "priority",
        type_name: "PriorityTiers",
        family: SchedulerFamily::Wrapper,
        summary: "Selects within the first tier of servers that can take the work (Envoy's priority levels)",
        parameters: &[NESTED_SCHEDULER, OVERPROVISIONING, PANIC_THRESHOLD],
    };
}

impl<S: Scheduler> Scheduler for PriorityTiers<S> {
    fn name(&self) -> &str {
        "priority"
    }

    fn reads_time(&self) -> bool {
        self.inner.reads_time()
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        let previous = previous_as::<PriorityTiersPicker>(previous);
        let mut numbers: Vec<u8> = members.iter().map(Member::tier).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let counts: Vec<TierCount> = numbers
            .iter()
            .map(|&number| count_tier(members.iter().filter(|m| m.tier() == number)))
            .collect();
        let mut below = 0;
        let tiers = numbers.iter().zip(self.policy.tier_loads(&counts)).map(|(&number, load)| {
            below += load.percent;
            let positions = (0..members.len()).filter(|&i| members[i].tier() == number);
            let positions: Box<[usize]> = positions.collect();
            let members = Members::new(positions.iter().map(|&i| tier_member(&members[i], load)));
            let previous = previous.and_then(|tiers| tiers.tier_picker(number));
            let picker = self.inner.compile(&members, previous)?;
            Ok(TierPicker { number, draw_limit: below, members, positions, picker })
        });
        Ok(Box::new(PriorityTiersPicker(tiers.collect::<Result<_, CompileError>>()?)))
    }
}

fn count_tier<'a>(members: impl Iterator<Item = &'a Member>) -> TierCount {
    members.filter(|m| is_counted(m)).fold(TierCount::default(), |count, member| TierCount {
        available: count.available + u64::from(member.share() != 0),
        counted: count.counted + 1,
    })
}

/// Tells whether the operator wants a member to serve.
fn is_counted(member: &Member) -> bool {
    // Not by state alone: a wrapper around this one may have left a member out.
    member.share() != 0 || (member.state().is_unhealthy() && member.weight() != 0)
}

/// The member as the list of its tier has it.
fn tier_member(member: &Member, load: TierLoad) -> Member {
    if load.panic && is_counted(member) {
        member.with_share(member.weight())
    } else {
        member.clone()
    }
}

/// All tiers that have members, by number.
#[derive(Debug)]
struct PriorityTiersPicker(Box<[TierPicker]>);

#[derive(Debug)]
struct TierPicker {
    number: u8,
    /// The least draw out of 100 that is another's: the sum of the parts up to this tier's own.
    draw_limit: u64,
    members: Members,
    /// Where the tier's members stand in the whole list.
    positions: Box<[usize]>,
    picker: Box<dyn Picker>,
}

/// Keeps the choice of the tier apart from what an inner rule makes of the same key: without it a
/// hash scheduler in the second tier would see the upper end of all hashes only.
const TIER_SALT: u64 = 0x7469_6572_2d64_7261;

impl PriorityTiersPicker {
    fn tier_picker(&self, number: u8) -> Option<&dyn Picker> {
        self.0.iter().find(|tier| tier.number == number).map(|tier| &*tier.picker)
    }

    /// The tier whose turn it is for this flow.
    fn draw_tier(&self, cx: &mut PickContext<'_>) -> usize {
        if self.0.first().is_none_or(|first| first.draw_limit == 100) {
            return 0;
        }
        let draw = scale_to_range(mix_bits(cx.key() ^ TIER_SALT), 100) as u64;
        // None where nobody has any work: then one is as good as another.
        self.0.iter().position(|tier| draw < tier.draw_limit).unwrap_or(0)
    }
}

impl Picker for PriorityTiersPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let (before, on) = self.0.split_at(self.draw_tier(cx));
        on.iter().chain(before).find_map(|tier| tier.pick(cx))
    }
}

impl TierPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        if self.members.share_sum() == 0 {
            return None;
        }
        let chosen = self.picker.pick(&mut cx.with_members(&self.members))?;
        self.positions.get(chosen).copied()
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::scheduler::{Rng, RoundRobin};
    use crate::{Backend, BackendId, BackendSet, Balancer, Flow, Health, Limits, PickError, Spec};

    #[test]
    fn impossible_parameters_are_refused() {
        let it = PriorityTiers::new(RoundRobin);
        let over = it.overprovisioning(0).expect_err("none");
        assert_eq!(over.to_string(), "priority: overprovisioning=0 is not within 1..=10000");
        let panic = it.panic_threshold(101).expect_err("more than all");
        assert_eq!(panic.to_string(), "priority: panic=101 is not within 0..=100");
        assert!(it.overprovisioning(10_000).is_ok() && it.panic_threshold(100).is_ok());
    }

    /// A set with `sizes[t]` members in tier `t`, named `t` and a letter.
    fn world(sizes: &[u8]) -> (BackendSet<()>, Balancer<()>) {
        let set = BackendSet::new();
        for (tier, &size) in sizes.iter().enumerate() {
            for letter in (b'a'..b'a' + size).rev().map(char::from) {
                set.insert(Spec::new(format!("{tier}{letter}"), ()).tier(tier as u8)).expect("new");
            }
        }
        let balancer =
            Balancer::new(&set, PriorityTiers::new(RoundRobin)).expect("rr takes any list");
        (set, balancer)
    }

    fn down(set: &BackendSet<()>, names: &[&str]) {
        for &name in names {
            set.set_health(&name.into(), Health::Down).expect("known");
        }
    }

    /// How often each member is picked by `n` flows with neither key nor source.
    fn tally(balancer: &Balancer<()>, n: usize) -> BTreeMap<String, usize> {
        let mut rng = Rng::with_seed(1);
        let mut tally = BTreeMap::new();
        for _ in 0..n {
            let lease = balancer.pick_with_rng(&Flow::new(), &mut rng).expect("somebody");
            *tally.entry(lease.id().to_string()).or_default() += 1;
        }
        tally
    }

    #[test]
    fn the_second_tier_takes_over_and_hands_back() {
        let (set, balancer) = world(&[2, 1]);
        assert_eq!(tally(&balancer, 4), [("0a", 2), ("0b", 2)].map(|(k, n)| (k.into(), n)).into());
        down(&set, &["0a", "0b"]);
        assert_eq!(tally(&balancer, 4).keys().collect::<Vec<_>>(), ["1a"]);
        set.set_health(&"0b".into(), Health::Up).expect("known");
        set.set_health(&"0a".into(), Health::Up).expect("known");
        assert_eq!(tally(&balancer, 4).len(), 2);
    }

    #[test]
    fn keyless_flows_are_divided_by_chance_and_keyed_ones_stay() {
        let (set, balancer) = world(&[4, 4]);
        down(&set, &["0a", "0b"]);
        let second: usize = tally(&balancer, 10_000)
            .iter()
            .filter_map(|(name, &n)| name.starts_with('1').then_some(n))
            .sum();
        assert!((2_800..3_200).contains(&second), "30 % of 10 000, got {second}");

        let tier = |key: u64| {
            let lease = balancer.pick(&Flow::new().key(key)).expect("somebody");
            lease.id().as_str().as_bytes()[0]
        };
        let moved = (0..1_000).filter(|&key| tier(key) != tier(key)).count();
        assert_eq!(moved, 0);
        let second = (0..10_000).filter(|&key| tier(key) == b'1').count();
        assert!((2_800..3_200).contains(&second), "consecutive keys spread, too: {second}");
    }

    #[test]
    fn the_keys_of_a_tier_come_from_the_whole_range() {
        let (set, balancer) = world(&[4, 4]);
        down(&set, &["0a", "0b"]);
        let mut quarters = [0; 4];
        for key in (0..10_000).map(mix_bits) {
            let lease = balancer.pick(&Flow::new().key(key)).expect("somebody");
            if lease.id().as_str().starts_with('1') {
                quarters[scale_to_range(key, 4)] += 1;
            }
        }
        assert!(quarters.iter().all(|n| (650..850).contains(n)), "{quarters:?}");
    }

    #[test]
    fn in_panic_the_down_serve_by_weight_but_nobody_the_operator_took_out() {
        let (set, balancer) = world(&[6]);
        set.set_weight(&"0a".into(), 0).expect("known");
        set.drain(&"0b".into()).expect("known");
        set.disable(&"0c".into()).expect("known");
        down(&set, &["0a", "0b", "0c", "0d", "0e", "0f"]);
        assert_eq!(tally(&balancer, 9).keys().collect::<Vec<_>>(), ["0d", "0e", "0f"]);
        down(&set, &["0d", "0e", "0f"]);
        set.set_weight(&"0d".into(), 0).expect("known");
        set.set_weight(&"0e".into(), 0).expect("known");
        set.set_weight(&"0f".into(), 0).expect("known");
        assert_eq!(balancer.pick(&Flow::new()).expect_err("all at 0"), PickError::AllQuiesced);
    }

    #[test]
    fn members_taken_out_by_the_operator_are_no_reason_for_panic() {
        let (set, balancer) = world(&[4]);
        set.drain(&"0a".into()).expect("known");
        set.disable(&"0b".into()).expect("known");
        down(&set, &["0c"]);
        assert_eq!(tally(&balancer, 4).keys().collect::<Vec<_>>(), ["0d"], "1 of 2 is 50 %");
    }

    #[test]
    fn a_full_or_tried_tier_passes_the_flow_on_and_around() {
        let (set, balancer) = world(&[1, 1]);
        let exclude = |names: &[&str]| {
            let backend = |&name: &&str| -> std::sync::Arc<Backend<()>> {
                let snapshot = set.snapshot();
                snapshot.find(&BackendId::from(name)).expect("known").clone()
            };
            names.iter().map(backend).fold(Flow::new(), |flow, backend| flow.excluding(&*backend))
        };
        let pick = |flow: &Flow| balancer.pick(flow).map(|lease| lease.id().to_string());
        assert_eq!(pick(&exclude(&["0a"])).as_deref(), Ok("1a"));
        assert_eq!(pick(&exclude(&["0a", "1a"])), Err(PickError::AllTried));

        set.set_limits(&"0a".into(), Limits::new(1)).expect("sound");
        set.set_limits(&"1a".into(), Limits::new(1)).expect("sound");
        let first = balancer.pick(&Flow::new()).expect("room");
        let second = balancer.pick(&Flow::new()).expect("room in the next tier");
        assert_eq!((first.id().as_str(), second.id().as_str()), ("0a", "1a"));
        assert_eq!(balancer.pick(&Flow::new()).map(drop), Err(PickError::AllAtLimit));
        drop(first);
        assert_eq!(pick(&Flow::new()).as_deref(), Ok("0a"));
    }

    #[test]
    fn a_tier_keeps_its_cursor_when_another_changes() {
        let (set, balancer) = world(&[3, 1]);
        let turn = || balancer.pick(&Flow::new()).expect("somebody").id().to_string();
        assert_eq!(turn(), "0a");
        down(&set, &["1a"]);
        assert_eq!(turn(), "0b");
    }
}
