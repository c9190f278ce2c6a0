//! Priority tiers with overflow and panic: `priority`.

use crate::backend::{Member, Members, Zone};
use crate::scheduler::hashing::{mix_bits, scale_to_range};
use crate::scheduler::parameter::{
    NESTED_SCHEDULER, ParameterKind, SchedulerFamily, SchedulerInfo, SchedulerParameter,
    SchedulerParameterError,
};
use crate::scheduler::traits::previous_as;
use crate::scheduler::wrap::tier_load::{TierCount, TierLoad, TierPolicy};
use crate::scheduler::{CompileError, PickContext, Picker, Scheduler};

/// `priority`: selects within tier 0 while it can take the work, otherwise within the next tiers.
///
/// Choose it for servers that should be idle while the others are healthy: another rack, another
/// site, a sorry server. It wraps a rule that selects within each [tier](Member::tier); every tier
/// has a picker of its own. The arithmetic is that of Envoy's priority levels and panic threshold,
/// in whole percents.
///
/// # Selection of the tier
/// A member is *counted* if the operator wants it to serve: its weight is above 0, and it is
/// neither draining nor disabled. A counted member is *available* if it is up. Weights do not
/// count. Members at their connection limit are available.
///
/// 1. A tier's *health* is `overprovisioning * available / counted`, at most 100 %. With the
///    default of 140 % a tier can lose 28 % of its members before any work leaves it.
/// 2. Work is assigned to the tiers in order, to each up to its health, until it adds up to 100 %.
/// 3. If the healths do not add up to 100 %, each tier gets its part of their sum. A tier of which
///    less than the *panic threshold* is available is then in panic: health is ignored, and all its
///    counted members get work by their full weight, whether they are up or down.
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
/// # Zones
/// [`zone`](Self::zone) divides each tier into the members of a zone, which come first, and those elsewhere: the table
/// above is then that of the zone and of all other zones. So work leaves a zone by as much as it is not healthy enough.
/// With an overprovisioning of 10000 it leaves when no member of the zone is left.
/// [`traffic`](Self::traffic) is for zones that are weaker than their traffic. Balancers in different zones choose
/// differently, and their [fingerprints](crate::Balancer::fingerprint) say so.
///
/// # Flows
/// The tier of a flow with a key or source is selected by a hash of it, so that the flow stays in
/// its tier while the percentages stay; the tier of other flows is random. If the inner rule finds
/// no usable member in the tier (limits, members tried before) the next tiers are tried in order,
/// then the tiers before.
///
/// With a single tier only panic differs from the inner rule. Members of weight 0 never get new
/// work. In panic a set serves even if all members are down;
/// [`panic_threshold(0)`](Self::panic_threshold) prevents that.
///
/// # Cost
/// The inner pick and about 4 ns, 3 ns more while several tiers have work; another inner pick for
/// each tier without a usable member. Memory: a copy of each member (64 bytes), 8 bytes for its
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
/// let rule = PriorityTiers::new(RoundRobin::new()).panic_threshold(0)?;
/// let balancer = Balancer::new(&set, rule)?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "main");
///
/// set.set_health(&"main".into(), Health::Down)?;
/// assert_eq!(balancer.pick(&Flow::new())?.id().as_str(), "spare");
///
/// set.set_health(&"spare".into(), Health::Down)?;
/// assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::AllDown);
/// balancer.set_scheduler(PriorityTiers::new(RoundRobin::new()))?;
/// assert!(balancer.pick(&Flow::new()).is_ok(), "in panic a backend that is down serves");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PriorityTiers<S> {
    inner: S,
    policy: TierPolicy,
    zone: Option<Zone>,
    /// The percentage of all traffic that comes from the zone.
    traffic: Option<u32>,
}

impl<S: Scheduler> PriorityTiers<S> {
    /// Creates tiers that each select by `inner`.
    #[must_use]
    pub const fn new(inner: S) -> Self {
        let policy = TierPolicy { overprovisioning: 140, panic_threshold: 50 };
        Self { inner, policy, zone: None, traffic: None }
    }

    /// Sets the work that a member can take, in percent of its even part: at 140 a tier of which 5
    /// of 7 members are left still takes everything. Below 100, work leaves even a healthy tier.
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

    /// Prefers members of this zone: those of a tier that are elsewhere, or whose zone is not known, become a tier of
    /// their own after it. Default: none, the zone does not count.
    #[must_use]
    pub fn zone(self, zone: Zone) -> Self {
        Self { zone: Some(zone), ..self }
    }

    /// Sets which part of all traffic comes to the balancers of the [zone](Self::zone), in percent, for zones that are
    /// not equally strong: a zone that has 25 % of the weight that is available in a tier, and 50 % of the traffic, keeps
    /// half of its traffic. Default: none, a zone keeps all that the health of its members allows.
    ///
    /// # Errors
    /// [`SchedulerParameterError`] for a percentage that is not within 1..=100.
    pub fn traffic(self, percent: u32) -> Result<Self, SchedulerParameterError> {
        Ok(Self { traffic: Some(TRAFFIC.check_integer("priority", percent)?), ..self })
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

const ZONE: SchedulerParameter = SchedulerParameter::new(
    "zone",
    ParameterKind::Zone,
    Some("none"),
    "The zone whose servers are preferred within each tier",
);
const TRAFFIC: SchedulerParameter = SchedulerParameter::new(
    "traffic",
    ParameterKind::Integer { min: 1, max: 100 },
    Some("the zone keeps all"),
    "The percentage of all traffic that comes from the zone: what exceeds its share of the weight goes elsewhere",
);

impl PriorityTiers<()> {
    pub(in crate::scheduler) const INFO: SchedulerInfo = SchedulerInfo {
        name: "priority",
        type_name: "PriorityTiers",
        family: SchedulerFamily::Wrapper,
        summary: "Selects within the first tier of servers that can take the work (Envoy's priority levels)",
        parameters: &[NESTED_SCHEDULER, OVERPROVISIONING, PANIC_THRESHOLD, ZONE, TRAFFIC],
    };
}

impl<S: Scheduler> Scheduler for PriorityTiers<S> {
    fn name(&self) -> &str {
        "priority"
    }

    fn depends_on_order(&self) -> bool {
        self.inner.depends_on_order()
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
        let mut levels: Vec<TierLevel> = members.iter().map(|it| self.level(it)).collect();
        levels.sort_unstable();
        levels.dedup();
        let counts: Vec<TierCount> = levels
            .iter()
            .map(|&level| count_tier(members.iter().filter(|m| self.level(m) == level)))
            .collect();
        let limits: Vec<u64> =
            levels.iter().map(|level| self.local_limit(members, *level)).collect();
        let mut below = 0;
        let loads = self.policy.limited_loads(&counts, &limits);
        let tiers = levels.iter().zip(loads).map(|(&level, load)| {
            below += load.percent;
            let positions = (0..members.len()).filter(|&i| self.level(&members[i]) == level);
            let positions: Box<[usize]> = positions.collect();
            let members = Members::new(positions.iter().map(|&i| tier_member(&members[i], load)));
            let previous = previous.and_then(|tiers| tiers.tier_picker(level));
            let picker = self.inner.compile(&members, previous)?;
            Ok(TierPicker { level, draw_limit: below, members, positions, picker })
        });
        Ok(Box::new(PriorityTiersPicker(tiers.collect::<Result<_, CompileError>>()?)))
    }
}

/// A tier, or the part of it that is elsewhere, which comes after it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct TierLevel {
    tier: u8,
    is_elsewhere: bool,
}

impl<S> PriorityTiers<S> {
    fn level(&self, member: &Member) -> TierLevel {
        let is_elsewhere = self.zone.is_some_and(|zone| member.zone() != Some(zone));
        TierLevel { tier: member.tier(), is_elsewhere }
    }

    /// Returns which part of the traffic the zone may keep in a tier, in percent: that for which it has the weight.
    fn local_limit(&self, members: &Members, level: TierLevel) -> u64 {
        let Some(traffic) = self.traffic.filter(|_| self.zone.is_some() && !level.is_elsewhere)
        else {
            return 100;
        };
        let weight = |is_part: &dyn Fn(TierLevel) -> bool| -> u64 {
            let part = members.iter().filter(|member| is_part(self.level(member)));
            part.map(|member| u64::from(member.share())).sum()
        };
        let (local, all) = (weight(&|it| it == level), weight(&|it| it.tier == level.tier));
        // Without a weight the tier is in panic, or gets nothing.
        (local * 100 * 100)
            .checked_div(all * u64::from(traffic))
            .map_or(100, |limit| limit.min(100))
    }
}

fn count_tier<'a>(members: impl Iterator<Item = &'a Member>) -> TierCount {
    members.filter(|m| is_counted(m)).fold(TierCount::default(), |count, member| TierCount {
        available: count.available + u64::from(member.share() != 0),
        counted: count.counted + 1,
    })
}

/// Returns whether the operator wants a member to serve.
fn is_counted(member: &Member) -> bool {
    // Not by state only: an outer wrapper may have removed the member's share.
    member.share() != 0 || (member.state().is_unhealthy() && member.weight() != 0)
}

/// Returns the member for the list of its tier, in panic with its full share.
fn tier_member(member: &Member, load: TierLoad) -> Member {
    if load.panic && is_counted(member) {
        member.with_share(member.weight())
    } else {
        member.clone()
    }
}

/// All tiers that have members, in their order.
#[derive(Debug)]
struct PriorityTiersPicker(Box<[TierPicker]>);

#[derive(Debug)]
struct TierPicker {
    level: TierLevel,
    /// The sum of the percentages up to this tier: a draw below it and not below that of the tier
    /// before selects this tier.
    draw_limit: u64,
    members: Members,
    /// The positions of the tier's members in the whole list.
    positions: Box<[usize]>,
    picker: Box<dyn Picker>,
}

/// Makes the selection of the tier independent of an inner rule's hash of the same key: without it
/// a hash scheduler in the second tier would get the upper end of all hashes only.
const TIER_SALT: u64 = 0x7469_6572_2d64_7261;

impl PriorityTiersPicker {
    fn tier_picker(&self, level: TierLevel) -> Option<&dyn Picker> {
        self.0.iter().find(|tier| tier.level == level).map(|tier| &*tier.picker)
    }

    /// Returns the index of the tier for this flow.
    fn draw_tier(&self, cx: &mut PickContext<'_>) -> usize {
        if self.0.first().is_none_or(|first| first.draw_limit == 100) {
            return 0;
        }
        let draw = scale_to_range(mix_bits(cx.key() ^ TIER_SALT), 100) as u64;
        // No tier has work if every member is unusable; then any tier serves as the start.
        self.0.iter().position(|tier| draw < tier.draw_limit).unwrap_or(0)
    }
}

impl Picker for PriorityTiersPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let (before, after) = self.0.split_at(self.draw_tier(cx));
        after.iter().chain(before).find_map(|tier| tier.pick(cx))
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
mod tests;
