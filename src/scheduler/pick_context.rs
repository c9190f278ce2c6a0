//! The context of a pick, and the test of which members it may choose.

use crate::backend::{BackendState, Member, Members};
use crate::scheduler::{Flow, FlowView, Rng};

/// The context of one pick: the members to choose from, the flow, and a random generator.
#[derive(Debug)]
pub struct PickContext<'a> {
    members: &'a Members,
    flow: FlowView<'a>,
    rng: &'a mut Rng,
    /// By reference, so that the contexts that wrappers make are small.
    load_bound: Option<&'a LoadBound>,
    lane: u8,
}

/// Whether a member may be chosen for a flow, in the kernel's terms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::scheduler) enum Availability {
    /// The member may be chosen.
    Usable,
    /// The member refuses for a reason that IPVS knows, too: weight 0 or its connection limit.
    Refusing,
    /// The member may not be chosen for a reason that IPVS does not know (health, drain, tried
    /// before, load bound): the rule tries other members.
    PassedOver,
}

/// The largest load that a member may have under `bounded`, relative to its weight.
#[derive(Clone, Copy, Debug)]
pub(in crate::scheduler) struct LoadBound {
    /// `factor in percent * (total load + 1)`.
    pub(in crate::scheduler) numerator: u128,
    /// `100 * sum of weights`.
    pub(in crate::scheduler) denominator: u128,
}

impl LoadBound {
    /// Returns whether a member of this load may take one more connection: `load < ceil(factor *
    /// fair share)`, which for whole numbers is the same without the rounding, multiplied out.
    #[inline]
    pub(in crate::scheduler) fn admits(self, load: u32, weight: u32) -> bool {
        u128::from(load) * self.denominator < self.numerator * u128::from(weight)
    }
}

impl<'a> PickContext<'a> {
    /// Creates the context of a pick; for tests of pickers. [`Balancer`](crate::Balancer) makes the
    /// others.
    pub fn new(members: &'a Members, flow: &'a Flow, rng: &'a mut Rng) -> Self {
        Self { members, flow: flow.view(), rng, load_bound: None, lane: 0 }
    }

    /// Returns the context for the worker thread that owns `lane`.
    #[inline]
    pub(crate) fn with_lane(self, lane: u8) -> Self {
        Self { lane, ..self }
    }

    /// Returns the lane of the worker thread that picks; see `BackendAccount::approximate_active`.
    #[inline]
    pub(in crate::scheduler) fn lane(&self) -> u8 {
        self.lane
    }

    /// Returns the members to choose from: the list from which the picker was compiled.
    #[inline]
    #[must_use]
    pub fn members(&self) -> &'a Members {
        self.members
    }

    /// Returns the flow for which a member is picked.
    #[inline]
    #[must_use]
    pub fn flow(&self) -> FlowView<'a> {
        self.flow
    }

    /// Returns the random generator.
    #[inline]
    pub fn rng(&mut self) -> &mut Rng {
        self.rng
    }

    /// Returns the flow's key, or a random key for a flow without one, which spreads such flows
    /// evenly.
    #[inline]
    pub fn key(&mut self) -> u64 {
        self.flow.key().unwrap_or_else(|| self.rng.next_u64())
    }

    /// Returns whether the member at `position` may be chosen: it is eligible, below its connection
    /// limit, not tried before, and within the load bound if there is one.
    ///
    /// Every picker checks every member that it is about to choose.
    #[inline]
    #[must_use]
    pub fn is_usable(&self, position: usize) -> bool {
        if self.members.share(position) == 0 {
            return false;
        }
        let is_share_enough = self.is_unrestricted() && !self.members.has_limits();
        is_share_enough || self.is_usable_beyond_share(position)
    }

    /// A function of its own, because it reads the member, a cache line that most picks do not
    /// need.
    #[inline(never)]
    fn is_usable_beyond_share(&self, position: usize) -> bool {
        let member = &self.members[position];
        !member.is_overloaded() && self.allows(member)
    }

    /// Returns whether nothing but eligibility and limits decides, so that a result for one flow
    /// holds for the next.
    #[inline]
    pub(in crate::scheduler) fn is_unrestricted(&self) -> bool {
        self.load_bound.is_none() && !self.flow.is_retry()
    }

    /// Returns whether the flow and the load bound permit a member: not tried before, within the
    /// bound.
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

    /// Returns the context of the same pick among other members, for wrappers.
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

    /// Returns the context of the same pick under a load bound, which replaces an outer bound.
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
