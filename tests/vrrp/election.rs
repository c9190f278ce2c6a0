//! The state machine of RFC 9568, section 6.4, and the crate's differences from it.

use std::time::{Duration, Instant};

use lvs::vrrp::{VrrpConfigError, VrrpVersion};

use crate::world::*;

const MS: Duration = Duration::from_millis(1);
const BECOMES_MASTER: [ElectionOutput; 3] = [
    ElectionOutput::SendAdvert { priority: 100 },
    ElectionOutput::AcquireAddresses,
    ElectionOutput::AnnounceAddresses,
];

/// Returns a started election in state backup, and the time.
fn backup(config: ElectionConfig) -> (Election, Instant) {
    let mut election = Election::new(config).expect("the configuration is valid");
    let now = start();
    election.start(now);
    assert_eq!((election.state(), actions(&mut election)), (VrrpState::Backup, vec![]));
    (election, now)
}

/// Returns an election in state master, of priority 100 and number 5, and the time.
fn master() -> (Election, Instant) {
    let (mut election, _) = backup(config(5, 100));
    let now = election.poll_timeout().expect("a timer runs");
    election.handle_timeout(now);
    assert_eq!(
        (election.state(), actions(&mut election)),
        (VrrpState::Master, BECOMES_MASTER.to_vec())
    );
    (election, now)
}

/// Returns the time until the next timer ends.
fn due(election: &Election, now: Instant) -> Duration {
    election.poll_timeout().expect("a timer runs") - now
}

/// Returns three intervals and the skew time of this priority.
fn master_down_interval(priority: u32) -> Duration {
    3 * TENTH + TENTH * (256 - priority) / 256
}

#[test]
fn an_owner_starts_as_master_and_others_wait_longer_the_lower_their_priority() {
    let mut owner = Election::new(config(1, 255)).expect("the configuration is valid");
    owner.start(start());
    assert_eq!(owner.state(), VrrpState::Master);
    for priority in [1, 100, 254] {
        let (election, now) = backup(config(1, priority));
        assert_eq!(due(&election, now), master_down_interval(u32::from(priority)));
    }
    let second = Duration::from_secs(1);
    let v2 = config(1, 100).version(VrrpVersion::V2).interval(3 * second);
    let (election, now) = backup(v2);
    assert_eq!(
        due(&election, now),
        9 * second + second * 156 / 256,
        "in version 2 the skew time is in seconds"
    );
}

#[test]
fn an_election_starts_once_and_after_its_start_delay() {
    let mut election = Election::new(config(1, 255).start_delay(Duration::from_secs(7)))
        .expect("the configuration is valid");
    let now = start();
    election.start(now);
    election.start(now + MS);
    assert_eq!((election.state(), due(&election, now)), (VrrpState::Init, Duration::from_secs(7)));
    election.handle_advert(now + MS, &advert(2, 3));
    election.handle_timeout(now + Duration::from_secs(7));
    assert_eq!(election.state(), VrrpState::Master);
    election.start(now + Duration::from_secs(8));
    assert_eq!(election.state(), VrrpState::Master);
}

#[test]
fn advertisements_of_equal_or_higher_priority_restart_the_master_down_timer() {
    let (mut election, mut now) = backup(config(5, 100));
    for (number, priority) in [(1, 100), (9, 100), (1, 101), (9, 255)] {
        now += 250 * MS;
        election.handle_advert(now, &advert(number, priority));
        assert_eq!(due(&election, now), master_down_interval(100));
    }
    election.handle_advert(now + 50 * MS, &advert(9, 99));
    assert_eq!(
        due(&election, now),
        master_down_interval(100),
        "an advertisement of lower priority does not restart the timer"
    );
    election.handle_timeout(now + 399 * MS - 40 * MS);
    assert_eq!(election.state(), VrrpState::Backup);
    election.handle_timeout(now + master_down_interval(100));
    assert_eq!(
        (election.state(), actions(&mut election)),
        (VrrpState::Master, BECOMES_MASTER.to_vec())
    );
}

#[test]
fn a_backup_takes_over_after_its_skew_time_when_the_master_resigns() {
    let (mut election, now) = backup(config(5, 100));
    election.handle_advert(now + MS, &advert(9, 0));
    assert_eq!(due(&election, now + MS), TENTH * 156 / 256);
    election.handle_timeout(now + TENTH);
    let last = transitions(&mut election).pop().expect("the state changed");
    assert_eq!((last.to, last.reason), (VrrpState::Master, TransitionReason::MasterResigned));
}

#[test]
fn a_backup_uses_the_masters_interval_and_a_master_its_own() {
    let (mut election, now) = backup(config(5, 100));
    let slow = ReceivedAdvert { interval: 10 * TENTH, ..advert(9, 200) };
    election.handle_advert(now, &slow);
    assert_eq!(due(&election, now), 10 * master_down_interval(100));
    let now = election.poll_timeout().expect("a timer runs");
    election.handle_timeout(now);
    assert_eq!(due(&election, now), TENTH);

    let second = Duration::from_secs(1);
    let (mut v2, now) = backup(config(5, 100).version(VrrpVersion::V2).interval(second));
    let before = v2.poll_timeout();
    v2.handle_advert(now + MS, &ReceivedAdvert { interval: 2 * second, ..advert(9, 200) });
    assert_eq!(
        v2.poll_timeout(),
        before,
        "version 2 ignores an advertisement with another interval"
    );
    v2.handle_advert(now + MS, &ReceivedAdvert { interval: second, ..advert(9, 200) });
    assert_ne!(v2.poll_timeout(), before);
}

#[test]
fn a_master_keeps_its_advertisement_period_when_a_timer_is_late() {
    let (mut election, mut now) = master();
    let began_at = now;
    for period in 1..=50_u32 {
        assert_eq!(due(&election, began_at), TENTH * period);
        // Each timer is late, and the lateness does not add up.
        now = began_at + TENTH * period + 7 * MS;
        election.handle_timeout(now);
        assert!(actions(&mut election).contains(&ElectionOutput::SendAdvert { priority: 100 }));
    }
}

#[test]
fn a_master_yields_to_a_higher_priority_or_an_equal_priority_and_a_higher_address() {
    for (number, priority, yields) in
        [(1, 101, true), (9, 101, true), (9, 100, true), (1, 100, false), (9, 99, false)]
    {
        let (mut election, now) = master();
        election.handle_advert(now + 30 * MS, &advert(number, priority));
        let (state, expected) = match yields {
            true => (VrrpState::Backup, vec![ElectionOutput::ReleaseAddresses]),
            false => (
                VrrpState::Master,
                vec![
                    ElectionOutput::SendAdvert { priority: 100 },
                    ElectionOutput::AnnounceAddresses,
                ],
            ),
        };
        assert_eq!(
            (election.state(), actions(&mut election)),
            (state, expected),
            "{number} {priority}"
        );
        let wait = if yields { master_down_interval(100) } else { TENTH };
        assert_eq!(due(&election, now + 30 * MS), wait);
    }
}

#[test]
fn a_master_advertises_and_announces_when_another_master_resigns() {
    let (mut election, now) = master();
    election.handle_advert(now + 30 * MS, &advert(9, 0));
    assert_eq!(
        actions(&mut election),
        [ElectionOutput::SendAdvert { priority: 100 }, ElectionOutput::AnnounceAddresses]
    );
    assert_eq!(election.state(), VrrpState::Master);
}

#[test]
fn a_stopped_master_resigns_and_a_stopped_backup_sends_nothing() {
    let (mut election, now) = master();
    election.stop(now + MS);
    assert_eq!(actions(&mut election), [ElectionOutput::SendAdvert { priority: 0 }]);
    // A successor of any priority ends the wait.
    election.set_priority(now + 2 * MS, 7).expect("the priority is valid");
    election.handle_advert(now + 3 * MS, &advert(9, 0));
    assert_eq!((election.state(), actions(&mut election)), (VrrpState::Master, vec![]));
    election.handle_advert(now + 9 * MS, &advert(9, 1));
    assert_eq!(actions(&mut election), [ElectionOutput::ReleaseAddresses]);
    assert_eq!((election.state(), election.poll_timeout()), (VrrpState::Init, None));
    let (mut election, now) = backup(config(5, 100));
    election.stop(now + MS);
    assert_eq!((actions(&mut election), election.poll_timeout()), (vec![], None));
    election.start(now + 2 * MS);
    assert_eq!(election.state(), VrrpState::Backup);
}

#[test]
fn a_stopped_master_waits_for_its_successor_for_an_interval_and_a_quarter() {
    let (mut election, now) = master();
    election.stop(now + MS);
    actions(&mut election);
    assert_eq!(due(&election, now + MS), TENTH * 5 / 4);
    election.handle_timeout(now + MS + TENTH * 5 / 4);
    assert_eq!(
        (election.state(), actions(&mut election)),
        (VrrpState::Init, vec![ElectionOutput::ReleaseAddresses])
    );
    // A second stop, or a stall meanwhile, ends the wait at once.
    for late in [false, true] {
        let (mut election, now) = master();
        election.stop(now + MS);
        actions(&mut election);
        match late {
            true => election.handle_timeout(now + Duration::from_secs(9)),
            false => election.stop(now + 2 * MS),
        }
        assert_eq!(
            (election.state(), actions(&mut election)),
            (VrrpState::Init, vec![ElectionOutput::ReleaseAddresses])
        );
    }
    let (mut election, now) = master();
    election.stop(now + MS);
    actions(&mut election);
    election.set_fault(now + 2 * MS, Some("link"));
    assert!(actions(&mut election).contains(&ElectionOutput::ReleaseAddresses));
    election.stop(now + 3 * MS);
    assert_eq!((election.state(), election.poll_timeout()), (VrrpState::Init, None));
}

#[test]
fn announcements_are_repeated_and_start_again_after_another_masters_advertisement() {
    let (mut election, began_at) = master();
    let mut announced = Vec::new();
    let mut run = |election: &mut Election, until: Duration| {
        while let Some(now) = election.poll_timeout().filter(|now| *now <= began_at + until) {
            election.handle_timeout(now);
            let count = outputs(election)
                .iter()
                .filter(|output| **output == ElectionOutput::AnnounceAddresses)
                .count();
            announced.extend(std::iter::repeat_n((now - began_at).as_secs(), count));
        }
        std::mem::take(&mut announced)
    };
    assert_eq!(run(&mut election, Duration::from_secs(20)), [1, 2, 3, 4, 5]);
    election.handle_advert(began_at + Duration::from_secs(20), &advert(1, 7));
    assert!(actions(&mut election).contains(&ElectionOutput::AnnounceAddresses));
    assert_eq!(run(&mut election, Duration::from_secs(40)), [21, 22, 23, 24, 25]);
}

#[test]
fn preemption_is_never_or_after_the_preempt_delay() {
    let (mut never, mut now) = backup(config(5, 100).preempt(PreemptMode::Never));
    for _ in 0..100 {
        now += TENTH;
        never.handle_advert(now, &advert(1, 10));
        assert_eq!(due(&never, now), master_down_interval(100));
    }
    let (mut delayed, began_at) =
        backup(config(5, 100).preempt(PreemptMode::After(Duration::from_secs(3))));
    let mut now = began_at;
    while delayed.state() == VrrpState::Backup && now < began_at + Duration::from_secs(9) {
        now += TENTH;
        delayed.handle_timeout(now);
        delayed.handle_advert(now, &advert(1, 10));
    }
    let delay = now - began_at;
    assert!((3000 * MS..=3600 * MS).contains(&delay), "{delay:?}");
    // An advertisement of the same priority in between restarts the delay.
    let (mut delayed, began_at) =
        backup(config(5, 100).preempt(PreemptMode::After(Duration::from_secs(3))));
    let mut now = began_at;
    for turn in 1..=40 {
        now += TENTH;
        delayed.handle_timeout(now);
        delayed.handle_advert(now, &advert(1, if turn == 20 { 100 } else { 10 }));
    }
    assert_eq!(delayed.state(), VrrpState::Backup, "only 2 s have passed since then");
}

#[test]
fn a_stalled_master_releases_the_addresses_before_it_handles_any_input() {
    for input in 0..4 {
        let (mut election, now) = master();
        let late = now + 300 * MS;
        match input {
            0 => election.handle_timeout(late),
            1 => election.handle_advert(late, &advert(1, 7)),
            2 => election.handle_advert(late, &advert(9, 200)),
            _ => election.set_priority(late, 120).expect("the priority is valid"),
        }
        assert_eq!(
            (election.state(), actions(&mut election)),
            (VrrpState::Backup, vec![ElectionOutput::ReleaseAddresses])
        );
    }
    let (mut election, now) = master();
    election.handle_timeout(now + 299 * MS);
    assert_eq!(
        actions(&mut election),
        [ElectionOutput::SendAdvert { priority: 100 }],
        "no backup has taken over yet"
    );
}

#[test]
fn a_stalled_backup_waits_for_its_skew_time_first() {
    let (mut election, now) = backup(config(5, 100));
    let late = now + Duration::from_secs(5);
    election.handle_timeout(late);
    assert_eq!((election.state(), due(&election, late)), (VrrpState::Backup, TENTH * 156 / 256));
    election.handle_advert(late + MS, &advert(9, 200));
    assert_eq!(due(&election, late + MS), master_down_interval(100), "there is a master");
    // Without a master it takes over, however late the second timer is.
    let (mut election, now) = backup(config(5, 100));
    election.handle_timeout(now + Duration::from_secs(5));
    election.handle_timeout(now + Duration::from_secs(10));
    assert_eq!(election.state(), VrrpState::Master);
}

#[test]
fn a_master_resigns_at_a_fault_and_becomes_backup_when_it_is_cleared() {
    let (mut election, now) = master();
    election.set_fault(now + MS, Some("link"));
    assert_eq!(
        actions(&mut election),
        [ElectionOutput::SendAdvert { priority: 0 }, ElectionOutput::ReleaseAddresses]
    );
    assert_eq!((election.state(), election.poll_timeout()), (VrrpState::Fault, None));
    election.handle_advert(now + 2 * MS, &advert(1, 7));
    election.handle_timeout(now + Duration::from_secs(9));
    assert_eq!((election.state(), actions(&mut election)), (VrrpState::Fault, vec![]));
    election.set_fault(now + Duration::from_secs(10), None);
    assert_eq!(election.state(), VrrpState::Backup);
    assert_eq!(due(&election, now + Duration::from_secs(10)), master_down_interval(100));
}

#[test]
fn a_master_advertises_a_new_priority_at_once_and_refuses_0() {
    let (mut election, now) = master();
    election.set_priority(now + MS, 100).expect("the priority is valid");
    assert_eq!(actions(&mut election), []);
    election.set_priority(now + MS, 40).expect("the priority is valid");
    assert_eq!(actions(&mut election), [ElectionOutput::SendAdvert { priority: 40 }]);
    assert_eq!(election.set_priority(now + MS, 0), Err(VrrpConfigError::Priority(0)));
    assert_eq!((actions(&mut election), election.priority()), (vec![], 40));
}

#[test]
fn a_transition_has_its_reason() {
    let (mut election, now) = master();
    election.handle_advert(now + MS, &advert(9, 200));
    let reason = TransitionReason::HigherPriority { priority: 200, source: address(9) };
    let expected = VrrpTransition { from: VrrpState::Master, to: VrrpState::Backup, reason };
    assert_eq!(transitions(&mut election), [expected]);
    let reasons = |election: &mut Election| -> Vec<_> {
        transitions(election).into_iter().map(|transition| transition.reason).collect()
    };
    // A fault names the item that is down, and its end the item that was down last.
    election.set_fault(now + 2 * MS, Some("link"));
    election.set_fault(now + 3 * MS, Some("service web"));
    election.set_fault(now + 4 * MS, None);
    election.stop(now + 5 * MS);
    election.start(now + 6 * MS);
    let fault = TransitionReason::Fault { track: "link".into() };
    let cleared = TransitionReason::FaultCleared { track: "service web".into() };
    let expected = [fault, cleared, TransitionReason::Stopped, TransitionReason::Started];
    assert_eq!(reasons(&mut election), expected);
    // No advertisement arrives.
    election.handle_timeout(election.poll_timeout().expect("a timer runs"));
    assert_eq!(reasons(&mut election), [TransitionReason::MasterTimeout]);
}

#[test]
fn a_preemption_names_the_master_of_lower_priority() {
    let last_reason = |mut election: Election| {
        election.handle_timeout(election.poll_timeout().expect("a timer runs"));
        transitions(&mut election).pop().expect("the state changed").reason
    };
    let (mut preempts, now) = backup(config(5, 100));
    preempts.handle_advert(now + MS, &advert(1, 70));
    let expected = TransitionReason::Preempted { priority: 70, source: address(1) };
    assert_eq!(last_reason(preempts), expected);
    // A master of higher priority advertised after the other router, and then died.
    let (mut waits, now) = backup(config(5, 100));
    waits.handle_advert(now + MS, &advert(1, 70));
    waits.handle_advert(now + 2 * MS, &advert(9, 200));
    assert_eq!(last_reason(waits), TransitionReason::MasterTimeout);
    // A master of lower priority that may keep the addresses died.
    let (mut waits, now) = backup(config(5, 100).preempt(PreemptMode::Never));
    waits.handle_advert(now + MS, &advert(1, 70));
    assert_eq!(last_reason(waits), TransitionReason::MasterTimeout);
}

#[test]
fn an_invalid_setting_is_named_in_the_error() {
    let refused = |config| Election::new(config).expect_err("refused");
    assert_eq!(refused(ElectionConfig::new(0, address(1))), VrrpConfigError::Vrid(0));
    assert_eq!(refused(config(1, 0)), VrrpConfigError::Priority(0));
    let six = "fe80::1".parse().expect("an IP address");
    assert_eq!(
        refused(ElectionConfig::new(1, six).version(VrrpVersion::V2)),
        VrrpConfigError::Ipv6InVersion2(six)
    );
    let error = refused(config(1, 1).interval(Duration::from_millis(15)));
    let text = "advertisement interval 15ms is not valid in version 3: \
                it takes 10ms to 40.95s in steps of 10ms";
    assert_eq!(error.to_string(), text);
}

#[test]
fn a_held_preemption_leaves_a_master_of_lower_priority_alone() {
    let (mut election, mut now) = backup(config(5, 100));
    election.hold_preemption(true);
    for _ in 0..20 {
        now += 100 * MS;
        election.handle_advert(now, &advert(9, 50));
        election.handle_timeout(now);
    }
    assert_eq!(election.state(), VrrpState::Backup);
    election.hold_preemption(false);
    for _ in 0..20 {
        now += 100 * MS;
        election.handle_advert(now, &advert(9, 50));
        election.handle_timeout(now);
    }
    assert_eq!(election.state(), VrrpState::Master);
    // Without any master, it takes over at once.
    let (mut election, now) = backup(config(5, 100));
    election.hold_preemption(true);
    election.handle_timeout(now + master_down_interval(100));
    assert_eq!(election.state(), VrrpState::Master);
}

#[test]
fn a_change_of_the_settings_keeps_the_state() {
    let (mut election, now) = master();
    election.reconfigure(now, config(5, 100).interval(TENTH)).expect("valid");
    assert_eq!(actions(&mut election), vec![], "nothing has changed");
    election.reconfigure(now, config(5, 100).interval(2 * TENTH)).expect("valid");
    assert_eq!(actions(&mut election), vec![ElectionOutput::SendAdvert { priority: 100 }]);
    assert_eq!((election.state(), due(&election, now)), (VrrpState::Master, 2 * TENTH));
    election.reconfigure(now, config(5, 100).interval(MS)).expect_err("below the minimum");
    assert_eq!(due(&election, now), 2 * TENTH);
    // The number stays.
    election.reconfigure(now, config(9, 100).interval(2 * TENTH)).expect("valid");
    assert_eq!(election.state(), VrrpState::Master);
}
