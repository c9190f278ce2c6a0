use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "an instant has no other origin")]
    Instant::now()
}

/// Loses the quorum at once, has it again at once, and returns the delay.
fn flap(announcement: &mut Announcement, now: Instant) -> Duration {
    announcement.set_health(now, false);
    announcement.set_health(now, true);
    announcement.poll_timeout().map_or(Duration::ZERO, |at| at - now)
}

#[test]
fn the_first_announcement_has_no_delay_also_if_it_begins_without_quorum() {
    let now = start();
    for first in [None, Some(false)] {
        let mut announcement = Announcement::new(&AnnouncerConfig::new());
        assert_eq!(announcement.state(), AnnouncementState::Pending);
        if let Some(is_healthy) = first {
            announcement.set_health(now, is_healthy);
            assert_eq!(announcement.state(), AnnouncementState::LastResort);
        }
        announcement.set_health(now, true);
        assert_eq!(announcement.state(), AnnouncementState::Announced);
        assert_eq!(announcement.poll_timeout(), None);
    }
}

#[test]
fn each_loss_soon_after_a_recovery_doubles_the_delay_up_to_its_maximum() {
    let mut now = start();
    let mut announcement = Announcement::new(&AnnouncerConfig::new());
    announcement.set_health(now, true);
    let mut delays = Vec::new();
    for _ in 0..8 {
        let delay = flap(&mut announcement, now);
        delays.push(delay.as_secs());
        now += delay;
        announcement.handle_timeout(now);
        assert_eq!(announcement.state(), AnnouncementState::Announced);
        now += SECOND;
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    // Steady for as long as the maximum: as at the first loss.
    now += 59 * SECOND;
    assert_eq!(flap(&mut announcement, now), SECOND);
    // A loss before the delay is over counts too.
    assert_eq!(flap(&mut announcement, now), 2 * SECOND);
    assert_eq!(announcement.reason(), AnnounceReason::Recovering);
}

#[test]
fn modes_go_before_health_except_that_an_unhealthy_address_is_no_better_while_drained() {
    let now = start();
    let mut announcement = Announcement::new(&AnnouncerConfig::new());
    announcement.set_mode(AnnounceMode::Drain);
    assert_eq!(announcement.state(), AnnouncementState::Pending);
    announcement.set_health(now, true);
    assert_eq!(announcement.state(), AnnouncementState::Draining);
    announcement.set_health(now, false);
    assert_eq!(announcement.state(), AnnouncementState::LastResort);
    announcement.set_mode(AnnounceMode::Withdraw);
    assert_eq!(announcement.state(), AnnouncementState::Withdrawn);
    announcement.set_mode(AnnounceMode::Normal);
    announcement.reconfigure(&AnnouncerConfig::new().without_quorum(WithoutQuorum::Withdraw));
    assert_eq!(announcement.state(), AnnouncementState::Withdrawn);
    assert_eq!(announcement.reason(), AnnounceReason::QuorumLost);
}

#[test]
fn without_a_recovery_delay_there_is_none() {
    let now = start();
    let mut announcement =
        Announcement::new(&AnnouncerConfig::new().recovery_delay(Duration::ZERO));
    announcement.set_health(now, true);
    for _ in 0..3 {
        assert_eq!(flap(&mut announcement, now), Duration::ZERO);
        assert_eq!(announcement.state(), AnnouncementState::Announced);
    }
}

proptest! {
    /// Whatever services and operators do: the state is that of the last health, after at most the longest delay.
    #[test]
    fn an_address_that_stays_healthy_is_announced_after_the_longest_delay(
        steps in proptest::collection::vec((0..90_u32, any::<bool>()), 0..60),
        delay in 0..5_u32,
    ) {
        let config = AnnouncerConfig::new().recovery_delay(delay * SECOND).max_recovery_delay(30 * SECOND);
        let mut announcement = Announcement::new(&config);
        let mut now = start();
        for (seconds, is_healthy) in steps {
            now += seconds * SECOND;
            announcement.handle_timeout(now);
            announcement.set_health(now, is_healthy);
            if !is_healthy {
                prop_assert_eq!(announcement.state(), AnnouncementState::LastResort);
                prop_assert_eq!(announcement.poll_timeout(), None);
            }
            prop_assert!(announcement.poll_timeout().is_none_or(|at| at - now <= 30 * SECOND));
        }
        announcement.set_health(now, true);
        announcement.handle_timeout(now + 30 * SECOND);
        prop_assert_eq!(announcement.state(), AnnouncementState::Announced);
    }
}
