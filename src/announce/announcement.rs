//! Decides the state of one address, without a clock and without sockets.

use std::time::{Duration, Instant};

use super::{AnnounceMode, AnnounceReason, AnnouncementState, AnnouncerConfig, WithoutQuorum};

/// Decides the state of one address by the health of its services, an operator's mode, and the recovery delay.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
/// use lvs::announce::{AnnouncerConfig, Announcement, AnnouncementState};
///
/// let now = Instant::now();
/// let mut announcement = Announcement::new(&AnnouncerConfig::new());
/// announcement.set_health(now, true);
/// assert_eq!(announcement.state(), AnnouncementState::Announced);
///
/// announcement.set_health(now, false);
/// assert_eq!(announcement.state(), AnnouncementState::LastResort);
///
/// announcement.set_health(now, true);
/// assert_eq!(announcement.state(), AnnouncementState::LastResort);
/// assert_eq!(announcement.poll_timeout(), Some(now + Duration::from_secs(1)));
/// announcement.handle_timeout(now + Duration::from_secs(1));
/// assert_eq!(announcement.state(), AnnouncementState::Announced);
/// ```
#[derive(Clone, Debug)]
pub struct Announcement {
    policy: AnnouncePolicy,
    mode: AnnounceMode,
    /// `None` until it is known.
    is_healthy: Option<bool>,
    /// The delay of the next recovery: 0 before the first loss.
    delay: Duration,
    /// When the recovery delay ends that runs.
    recovers_at: Option<Instant>,
    /// When the last recovery delay ended.
    recovered_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct AnnouncePolicy {
    without_quorum: WithoutQuorum,
    recovery_delay: Duration,
    max_recovery_delay: Duration,
}

impl AnnouncePolicy {
    fn new(config: &AnnouncerConfig) -> Self {
        Self {
            without_quorum: config.without_quorum,
            recovery_delay: config.recovery_delay,
            max_recovery_delay: config.max_recovery_delay,
        }
    }
}

impl Announcement {
    /// Creates an announcement whose health is not known.
    #[must_use]
    pub fn new(config: &AnnouncerConfig) -> Self {
        Self {
            policy: AnnouncePolicy::new(config),
            mode: AnnounceMode::default(),
            is_healthy: None,
            delay: Duration::ZERO,
            recovers_at: None,
            recovered_at: None,
        }
    }

    /// Changes to the delays of another configuration. A recovery delay that runs is not changed.
    pub fn reconfigure(&mut self, config: &AnnouncerConfig) {
        self.policy = AnnouncePolicy::new(config);
        let AnnouncePolicy { recovery_delay, max_recovery_delay, .. } = self.policy;
        let longest = if recovery_delay.is_zero() { Duration::ZERO } else { max_recovery_delay };
        self.delay = self.delay.min(longest);
    }

    /// Sets an operator's mode.
    pub fn set_mode(&mut self, mode: AnnounceMode) {
        self.mode = mode;
    }

    /// Sets whether the services at the address can serve.
    pub fn set_health(&mut self, now: Instant, is_healthy: bool) {
        match (self.is_healthy.replace(is_healthy), is_healthy) {
            (Some(true), false) => {
                let AnnouncePolicy { recovery_delay, max_recovery_delay, .. } = self.policy;
                let is_recent = |at| now.saturating_duration_since(at) < max_recovery_delay;
                let is_flap =
                    self.recovers_at.take().is_some() || self.recovered_at.is_some_and(is_recent);
                let doubled = self.delay.saturating_mul(2).max(recovery_delay);
                self.delay = if is_flap { doubled.min(max_recovery_delay) } else { recovery_delay };
            }
            (None | Some(false), true) if !self.delay.is_zero() => {
                self.recovers_at = now.checked_add(self.delay);
            }
            _ => {}
        }
    }

    /// Returns when the recovery delay ends that runs.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.recovers_at
    }

    /// Ends the recovery delay, if it is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.recovers_at.is_some_and(|at| at <= now) {
            self.recovers_at = None;
            self.recovered_at = Some(now);
        }
    }

    /// Returns the state.
    #[must_use]
    pub fn state(&self) -> AnnouncementState {
        match self.reason() {
            AnnounceReason::HealthUnknown => AnnouncementState::Pending,
            AnnounceReason::QuorumMet => AnnouncementState::Announced,
            AnnounceReason::DrainMode => AnnouncementState::Draining,
            AnnounceReason::WithdrawMode => AnnouncementState::Withdrawn,
            AnnounceReason::QuorumLost | AnnounceReason::Recovering => {
                match self.policy.without_quorum {
                    WithoutQuorum::LastResort => AnnouncementState::LastResort,
                    WithoutQuorum::Withdraw => AnnouncementState::Withdrawn,
                }
            }
        }
    }

    /// Returns why the state is what it is.
    #[must_use]
    pub fn reason(&self) -> AnnounceReason {
        match (self.mode, self.is_healthy) {
            (AnnounceMode::Withdraw, _) => AnnounceReason::WithdrawMode,
            (_, None) => AnnounceReason::HealthUnknown,
            (_, Some(false)) => AnnounceReason::QuorumLost,
            (_, Some(true)) if self.recovers_at.is_some() => AnnounceReason::Recovering,
            (AnnounceMode::Drain, Some(true)) => AnnounceReason::DrainMode,
            (AnnounceMode::Normal, Some(true)) => AnnounceReason::QuorumMet,
        }
    }
}

#[cfg(test)]
mod tests;
