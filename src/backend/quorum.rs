//! How much of a set must be up for it to serve at all.

/// The least weight that must be healthy, with hysteresis, as keepalived has it.
///
/// The weights of the backends that are up are summed up (as they count: with what their checkers
/// [advise](super::Advice)). A set that has its quorum loses it when the sum falls below
/// `weight - hysteresis` or to nothing; one that has lost it gains it again at `weight + hysteresis`.
///
/// Without its quorum a set gives out no new work: its members are
/// [withheld](super::State::Withheld), and the forwarder's sorry server takes over. With
/// [`advisory`](Self::advisory) it goes on, and the loss is only said. It is stronger than a
/// [`FailMode`](super::FailMode): a service that must not run on too few does not run on the sick.
///
/// # Examples
/// ```
/// use lvs::backend::Quorum;
///
/// let quorum = Quorum::new(10).hysteresis(2);
/// assert!(quorum.is_met(true, 8) && !quorum.is_met(true, 7));
/// assert!(quorum.is_met(false, 12) && !quorum.is_met(false, 11));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Quorum {
    weight: u64,
    hysteresis: u64,
    advisory: bool,
}

impl Quorum {
    /// A quorum of so much weight.
    #[must_use]
    pub const fn new(weight: u64) -> Self {
        Self { weight, hysteresis: 0, advisory: false }
    }

    /// How far beyond the quorum the sum must go before the answer changes. Default: 0.
    #[must_use]
    pub const fn hysteresis(self, weight: u64) -> Self {
        Self { hysteresis: weight, ..self }
    }

    /// Only says that it is lost: what keepalived does where no sorry server is configured.
    #[must_use]
    pub const fn advisory(self) -> Self {
        Self { advisory: true, ..self }
    }

    /// Tells whether a set `has` its quorum when the healthy weigh so much; `had` is whether it had
    /// it before.
    #[must_use]
    pub const fn is_met(self, had: bool, healthy_weight: u64) -> bool {
        let least = if had {
            self.weight.saturating_sub(self.hysteresis)
        } else {
            self.weight.saturating_add(self.hysteresis)
        };
        // Nobody at all is no quorum, whatever was asked for.
        healthy_weight != 0 && healthy_weight >= least
    }

    pub(super) const fn is_advisory(self) -> bool {
        self.advisory
    }
}
