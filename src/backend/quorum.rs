//! The quorum: the healthy weight that a set needs to serve.

/// The least healthy weight of a set, with hysteresis, as in keepalived.
///
/// The effective weights of the healthy backends are added up. A set that meets its quorum loses it
/// when the sum falls below `weight - hysteresis` or to 0, and meets it again at
/// `weight + hysteresis`.
///
/// A set without its quorum gives out no new work: its members are
/// [withheld](super::BackendState::Withheld), and the forwarder's sorry server serves. An
/// [advisory](Self::with_advisory) quorum is only reported. A quorum goes before a
/// [`FailMode`](super::FailMode): a set that has lost it does not fall back on unhealthy backends.
///
/// # Examples
/// ```
/// use lvs::backend::Quorum;
///
/// let quorum = Quorum::new(10).with_hysteresis(2);
/// assert!(quorum.is_met(true, 8) && !quorum.is_met(true, 7));
/// assert!(quorum.is_met(false, 12) && !quorum.is_met(false, 11));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
pub struct Quorum {
    weight: u64,
    hysteresis: u64,
    advisory: bool,
}

impl Quorum {
    /// Makes a quorum of this weight.
    #[must_use]
    pub const fn new(weight: u64) -> Self {
        Self { weight, hysteresis: 0, advisory: false }
    }

    /// Returns this quorum with another hysteresis: how far the sum must pass the weight before the
    /// result changes. Default: 0.
    #[must_use]
    pub const fn with_hysteresis(self, hysteresis: u64) -> Self {
        Self { hysteresis, ..self }
    }

    /// Returns this quorum as one that is only reported, or not. keepalived only reports it where no
    /// sorry server is configured. Default: `false`.
    #[must_use]
    pub const fn with_advisory(self, advisory: bool) -> Self {
        Self { advisory, ..self }
    }

    /// Tells whether `healthy_weight` meets the quorum, where `was_met` says whether the quorum was met
    /// before.
    #[must_use]
    pub const fn is_met(self, was_met: bool, healthy_weight: u64) -> bool {
        let least = if was_met {
            self.weight.saturating_sub(self.hysteresis)
        } else {
            self.weight.saturating_add(self.hysteresis)
        };
        // No healthy backend meets no quorum, not even one of 0.
        healthy_weight != 0 && healthy_weight >= least
    }

    /// Returns the weight that the set needs.
    #[must_use]
    pub const fn weight(self) -> u64 {
        self.weight
    }

    /// Tells whether the quorum is only reported.
    #[must_use]
    pub const fn is_advisory(self) -> bool {
        self.advisory
    }
}
