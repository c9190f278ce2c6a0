//! What a picker is given, and the one place that says who may be chosen.

use crate::backend::{BackendState, Member, Members};
use crate::scheduler::{Flow, Rng};

/// One pick: the members to choose from, the flow, and a random generator.
#[derive(Debug)]
pub struct PickContext<'a> {
    members: &'a Members,
    flow: &'a Flow,
    rng: &'a mut Rng,
    /// By reference, so that wrappers copy next to nothing.
    load_bound: Option<&'a LoadBound>,
    lane: u8,
}

/// May a member be chosen for this flow? The answer in the kernel's terms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::scheduler) enum Availability {
    /// Yes.
    Usable,
    /// No, by a rule that IPVS knows too: weight 0 or at its connection limit.
    Refusing,
    /// No, for a reason IPVS does not know (health, drain, tried before, bounded load): look on.
    PassedOver,
}

/// The most that a member may carry by the bounded-load rule, relative to its weight.
#[derive(Clone, Copy, Debug)]
pub(in crate::scheduler) struct LoadBound {
    /// `factor in percent * (total load + 1)`.
    pub(in crate::scheduler) numerator: u128,
    /// `100 * sum of weights`.
    pub(in crate::scheduler) denominator: u128,
}

impl LoadBound {
    /// Tells whether a member that carries `load` may take one more: `load < ceil(factor * its part
    /// of the total)`, which for whole numbers is the same without the rounding, multiplied out.
    #[inline]
    pub(in crate::scheduler) fn admits(self, load: u32, weight: u32) -> bool {
        u128::from(load) * self.denominator < self.numerator * u128::from(weight)
    }
}

impl<'a> PickContext<'a> {
    /// A pick of its own; [`Balancer`](crate::Balancer) makes these, and tests of pickers.
    pub fn new(members: &'a Members, flow: &'a Flow, rng: &'a mut Rng) -> Self {
        Self { members, flow, rng, load_bound: None, lane: 0 }
    }

    /// The same pick by the worker of a lane.
    #[inline]
    pub(crate) fn with_lane(self, lane: u8) -> Self {
        Self { lane, ..self }
    }

    /// Whose eyes the pick is made with; see `active_near` of an account.
    #[inline]
    pub(in crate::scheduler) fn lane(&self) -> u8 {
        self.lane
    }

    /// The members to choose from; the picker was compiled from this very list.
    #[inline]
    #[must_use]
    pub fn members(&self) -> &'a Members {
        self.members
    }

    /// The flow that looks for a backend.
    #[inline]
    pub fn flow(&self) -> &'a Flow {
        self.flow
    }

    /// The random generator.
    #[inline]
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// The flow's key; a random one where it has none, which spreads keyless flows evenly.
    #[inline]
    pub fn key(&mut self) -> u64 {
        self.flow.seen_key().unwrap_or_else(|| self.rng.next_u64())
    }

    /// Tells whether the member at `position` may be chosen: eligible, below its connection limit,
    /// not tried before, and within the load bound if there is one.
    ///
    /// Every picker asks this of every member it is about to choose.
    #[inline]
    #[must_use]
    pub fn is_usable(&self, position: usize) -> bool {
        if self.members.share(position) == 0 {
            return false;
        }
        let no_more_to_ask = self.is_unrestricted() && !self.members.has_limits();
        no_more_to_ask || self.is_usable_beyond_share(position)
    }

    /// Apart, and so is the member itself: a line of memory that most picks do not need.
    #[inline(never)]
    fn is_usable_beyond_share(&self, position: usize) -> bool {
        let member = &self.members[position];
        !member.is_overloaded() && self.allows(member)
    }

    /// Tells whether nothing but eligibility and limits decides, so that what was found for one
    /// flow holds for the next.
    #[inline]
    pub(in crate::scheduler) fn is_unrestricted(&self) -> bool {
        self.load_bound.is_none() && !self.flow.is_retry()
    }

    /// Tells whether this very pick may go to a member: not tried before, within the bound.
    #[inline]
    pub(in crate::scheduler) fn allows(&self, member: &Member) -> bool {
        if self.flow.is_retry() && self.flow.has_tried(member.serial()) {
            return false;
        }
        match self.load_bound {
            None => true,
            Some(bound) => bound.admits(member.load().total(), member.weight()),
        }
    }

    #[inline]
    pub(in crate::scheduler) fn availability(&self, position: usize) -> Availability {
        let member = &self.members[position];
        match member.state() {
            BackendState::Quiesced => Availability::Refusing,
            // A tier that ignores health gives a share to a member that is down.
            _ if member.share() == 0 || !self.allows(member) => Availability::PassedOver,
            _ if member.is_overloaded() => Availability::Refusing,
            _ => Availability::Usable,
        }
    }

    /// The same pick among other members, for wrappers.
    #[must_use]
    pub fn with_members<'b>(&'b mut self, members: &'b Members) -> PickContext<'b> {
        PickContext {
            members,
            flow: self.flow,
            rng: &mut *self.rng,
            load_bound: self.load_bound,
            lane: self.lane,
        }
    }

    /// The same pick under a load bound; the tighter wrapper is the inner one.
    pub(in crate::scheduler) fn with_load_bound<'b>(
        &'b mut self,
        bound: &'b LoadBound,
    ) -> PickContext<'b> {
        PickContext {
            members: self.members,
            flow: self.flow,
            rng: &mut *self.rng,
            load_bound: Some(bound),
            lane: self.lane,
        }
    }
}
