//! The policy for members that the source no longer lists.

use std::time::Duration;

/// The treatment of a member that the source no longer lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RemovalPolicy {
    /// The member gets no new connections. It is removed when its last connection has ended, or at
    /// the deadline: connections that are left then go on, as leases do, but are no longer counted.
    /// The default, with five minutes.
    Drain {
        /// The longest time of the drain; [`Duration::MAX`] is no deadline.
        deadline: Duration,
    },
    /// The member is removed at once; its connections go on.
    AtOnce,
}

impl RemovalPolicy {
    /// Five minutes: most connections have ended by then; AWS's load balancers wait as long.
    pub(super) const DEFAULT: Self = Self::Drain { deadline: Duration::from_secs(300) };
}
