//! The state table of RFC 9568, section 6.4, and what goes beyond it.

use std::time::{Duration, Instant};

use lvs::vrrp::{VrrpConfigError, VrrpVersion};

use crate::world::*;

const MS: Duration = Duration::from_millis(1);
const TAKES: [ElectionOutput; 3] = [
    ElectionOutput::SendAdvert { priority: 100 },
    ElectionOutput::AcquireAddresses,
    ElectionOutput::AnnounceAddresses,
];

/// A started router, and what its clock says.
fn backup(config: ElectionConfig) -> (Election, Instant) {
    let mut router = Election::new(config).expect("sound");
    let now = start();
    router.start(now);
    assert_eq!((router.state(), deeds(&mut router)), (VrrpState::Backup, vec![]));
    (router, now)
}

/// A master of priority 100 and number 5.
fn master() -> (Election, Instant) {
    let (mut router, _) = backup(config(5, 100));
    let now = router.poll_timeout().expect("it waits");
    router.handle_timeout(now);
    assert_eq!((router.state(), deeds(&mut router)), (VrrpState::Master, TAKES.to_vec()));
    (router, now)
}

fn due(router: &Election, now: Instant) -> Duration {
    router.poll_timeout().expect("it waits") - now
}

/// Three intervals, and the part of a fourth that the priority leaves.
fn patience(priority: u32) -> Duration {
    3 * TENTH + TENTH * (256 - priority) / 256
}

#[test]
fn the_owner_begins_as_master_and_others_wait_the_longer_the_lower_they_are() {
    let mut owner = Election::new(config(1, 255)).expect("sound");
    owner.start(start());
    assert_eq!(owner.state(), VrrpState::Master);
    for priority in [1, 100, 254] {
        let (router, now) = backup(config(1, priority));
        assert_eq!(due(&router, now), patience(u32::from(priority)));
    }
    let second = Duration::from_secs(1);
    let v2 = config(1, 100).version(VrrpVersion::V2).interval(3 * second);
    let (router, now) = backup(v2);
    assert_eq!(due(&router, now), 9 * second + second * 156 / 256, "the skew is in seconds");
}

#[test]
fn it_starts_once_and_later_if_told_to() {
    let mut router =
        Election::new(config(1, 255).start_delay(Duration::from_secs(7))).expect("sound");
    let now = start();
    router.start(now);
    router.start(now + MS);
    assert_eq!((router.state(), due(&router, now)), (VrrpState::Init, Duration::from_secs(7)));
    router.handle_advert(now + MS, &heard(2, 3));
    router.handle_timeout(now + Duration::from_secs(7));
    assert_eq!(router.state(), VrrpState::Master);
    router.start(now + Duration::from_secs(8));
    assert_eq!(router.state(), VrrpState::Master);
}

#[test]
fn a_backup_is_patient_as_long_as_it_hears_its_equals_and_betters() {
    let (mut router, mut now) = backup(config(5, 100));
    for (number, priority) in [(1, 100), (9, 100), (1, 101), (9, 255)] {
        now += 250 * MS;
        router.handle_advert(now, &heard(number, priority));
        assert_eq!(due(&router, now), patience(100));
    }
    router.handle_advert(now + 50 * MS, &heard(9, 99));
    assert_eq!(due(&router, now), patience(100), "a lesser one is not heard");
    router.handle_timeout(now + 399 * MS - 40 * MS);
    assert_eq!(router.state(), VrrpState::Backup);
    router.handle_timeout(now + patience(100));
    assert_eq!((router.state(), deeds(&mut router)), (VrrpState::Master, TAKES.to_vec()));
}

#[test]
fn a_farewell_is_followed_after_the_skew() {
    let (mut router, now) = backup(config(5, 100));
    router.handle_advert(now + MS, &heard(9, 0));
    assert_eq!(due(&router, now + MS), TENTH * 156 / 256);
    router.handle_timeout(now + TENTH);
    assert!(outputs(&mut router).iter().any(|output| matches!(
        output,
        ElectionOutput::StateChanged(change) if change.to == VrrpState::Master && change.reason == TransitionReason::MasterResigned
    )));
}

#[test]
fn a_backup_learns_the_masters_interval_and_a_master_has_its_own() {
    let (mut router, now) = backup(config(5, 100));
    let slow = ReceivedAdvert { interval: 10 * TENTH, ..heard(9, 200) };
    router.handle_advert(now, &slow);
    assert_eq!(due(&router, now), 10 * patience(100));
    let now = router.poll_timeout().expect("it waits");
    router.handle_timeout(now);
    assert_eq!(due(&router, now), TENTH);

    let second = Duration::from_secs(1);
    let (mut v2, now) = backup(config(5, 100).version(VrrpVersion::V2).interval(second));
    let before = v2.poll_timeout();
    v2.handle_advert(now + MS, &ReceivedAdvert { interval: 2 * second, ..heard(9, 200) });
    assert_eq!(v2.poll_timeout(), before, "version 2 does not hear another interval");
    v2.handle_advert(now + MS, &ReceivedAdvert { interval: second, ..heard(9, 200) });
    assert_ne!(v2.poll_timeout(), before);
}

#[test]
fn a_master_keeps_its_beat() {
    let (mut router, mut now) = master();
    let begun = now;
    for beat in 1..=50_u32 {
        assert_eq!(due(&router, begun), TENTH * beat);
        // A little late each time, and no later for it.
        now = begun + TENTH * beat + 7 * MS;
        router.handle_timeout(now);
        assert!(deeds(&mut router).contains(&ElectionOutput::SendAdvert { priority: 100 }));
    }
}

#[test]
fn a_master_gives_way_to_its_betters_and_of_equals_to_the_higher_address() {
    for (number, priority, gives_way) in
        [(1, 101, true), (9, 101, true), (9, 100, true), (1, 100, false), (9, 99, false)]
    {
        let (mut router, now) = master();
        router.handle_advert(now + 30 * MS, &heard(number, priority));
        let (state, wanted) = match gives_way {
            true => (VrrpState::Backup, vec![ElectionOutput::ReleaseAddresses]),
            false => (
                VrrpState::Master,
                vec![
                    ElectionOutput::SendAdvert { priority: 100 },
                    ElectionOutput::AnnounceAddresses,
                ],
            ),
        };
        assert_eq!((router.state(), deeds(&mut router)), (state, wanted), "{number} {priority}");
        let wait = if gives_way { patience(100) } else { TENTH };
        assert_eq!(due(&router, now + 30 * MS), wait);
    }
}

#[test]
fn a_master_that_hears_a_farewell_says_that_it_is_there() {
    let (mut router, now) = master();
    router.handle_advert(now + 30 * MS, &heard(9, 0));
    assert_eq!(
        deeds(&mut router),
        [ElectionOutput::SendAdvert { priority: 100 }, ElectionOutput::AnnounceAddresses]
    );
    assert_eq!(router.state(), VrrpState::Master);
}

#[test]
fn a_master_stops_with_a_farewell_and_a_backup_without_a_word() {
    let (mut router, now) = master();
    router.stop(now + MS);
    assert_eq!(deeds(&mut router), [ElectionOutput::SendAdvert { priority: 0 }]);
    // The successor, whatever its priority.
    router.set_priority(now + 2 * MS, 7);
    router.handle_advert(now + 3 * MS, &heard(9, 0));
    assert_eq!((router.state(), deeds(&mut router)), (VrrpState::Master, vec![]));
    router.handle_advert(now + 9 * MS, &heard(9, 1));
    assert_eq!(deeds(&mut router), [ElectionOutput::ReleaseAddresses]);
    assert_eq!((router.state(), router.poll_timeout()), (VrrpState::Init, None));
    let (mut router, now) = backup(config(5, 100));
    router.stop(now + MS);
    assert_eq!((deeds(&mut router), router.poll_timeout()), (vec![], None));
    router.start(now + 2 * MS);
    assert_eq!(router.state(), VrrpState::Backup);
}

#[test]
fn a_master_that_stops_waits_a_while_for_its_successor_and_no_longer() {
    let (mut router, now) = master();
    router.stop(now + MS);
    deeds(&mut router);
    assert_eq!(due(&router, now + MS), TENTH * 5 / 4);
    router.handle_timeout(now + MS + TENTH * 5 / 4);
    assert_eq!(
        (router.state(), deeds(&mut router)),
        (VrrpState::Init, vec![ElectionOutput::ReleaseAddresses])
    );
    // Told once more it goes at once; and one that was held up meanwhile, too.
    for late in [false, true] {
        let (mut router, now) = master();
        router.stop(now + MS);
        deeds(&mut router);
        match late {
            true => router.handle_timeout(now + Duration::from_secs(9)),
            false => router.stop(now + 2 * MS),
        }
        assert_eq!(
            (router.state(), deeds(&mut router)),
            (VrrpState::Init, vec![ElectionOutput::ReleaseAddresses])
        );
    }
    let (mut router, now) = master();
    router.stop(now + MS);
    deeds(&mut router);
    router.set_fault(now + 2 * MS, true);
    assert!(deeds(&mut router).contains(&ElectionOutput::ReleaseAddresses));
    router.stop(now + 3 * MS);
    assert_eq!((router.state(), router.poll_timeout()), (VrrpState::Init, None));
}

#[test]
fn addresses_are_announced_again_and_anew_when_another_master_was_heard() {
    let (mut router, begun) = master();
    let mut announced = Vec::new();
    let mut run = |router: &mut Election, until: Duration| {
        while let Some(now) = router.poll_timeout().filter(|now| *now <= begun + until) {
            router.handle_timeout(now);
            let again = outputs(router)
                .iter()
                .filter(|it| **it == ElectionOutput::AnnounceAddresses)
                .count();
            announced.extend(std::iter::repeat_n((now - begun).as_secs(), again));
        }
        std::mem::take(&mut announced)
    };
    assert_eq!(run(&mut router, Duration::from_secs(20)), [1, 2, 3, 4, 5]);
    router.handle_advert(begun + Duration::from_secs(20), &heard(1, 7));
    assert!(deeds(&mut router).contains(&ElectionOutput::AnnounceAddresses));
    assert_eq!(run(&mut router, Duration::from_secs(40)), [21, 22, 23, 24, 25]);
}

#[test]
fn who_may_not_preempt_puts_up_with_a_lesser_master_and_who_waits_takes_over_later() {
    let (mut never, mut now) = backup(config(5, 100).preempt(PreemptMode::Never));
    for _ in 0..100 {
        now += TENTH;
        never.handle_advert(now, &heard(1, 10));
        assert_eq!(due(&never, now), patience(100));
    }
    let (mut later, begun) =
        backup(config(5, 100).preempt(PreemptMode::After(Duration::from_secs(3))));
    let mut now = begun;
    while later.state() == VrrpState::Backup && now < begun + Duration::from_secs(9) {
        now += TENTH;
        later.handle_timeout(now);
        later.handle_advert(now, &heard(1, 10));
    }
    let took = now - begun;
    assert!((3000 * MS..=3600 * MS).contains(&took), "{took:?}");
    // A better one in between, and the wait begins anew.
    let (mut later, begun) =
        backup(config(5, 100).preempt(PreemptMode::After(Duration::from_secs(3))));
    let mut now = begun;
    for turn in 1..=40 {
        now += TENTH;
        later.handle_timeout(now);
        later.handle_advert(now, &heard(1, if turn == 20 { 100 } else { 10 }));
    }
    assert_eq!(later.state(), VrrpState::Backup, "2 s after the better one");
}

#[test]
fn one_that_was_held_up_gives_up_before_it_does_anything_else() {
    for how in 0..4 {
        let (mut router, now) = master();
        let late = now + 300 * MS;
        match how {
            0 => router.handle_timeout(late),
            1 => router.handle_advert(late, &heard(1, 7)),
            2 => router.handle_advert(late, &heard(9, 200)),
            _ => router.set_priority(late, 120),
        }
        assert_eq!(
            (router.state(), deeds(&mut router)),
            (VrrpState::Backup, vec![ElectionOutput::ReleaseAddresses])
        );
    }
    let (mut router, now) = master();
    router.handle_timeout(now + 299 * MS);
    assert_eq!(
        deeds(&mut router),
        [ElectionOutput::SendAdvert { priority: 100 }],
        "nobody has taken over yet"
    );
}

#[test]
fn a_backup_that_was_held_up_listens_first() {
    let (mut router, now) = backup(config(5, 100));
    let late = now + Duration::from_secs(5);
    router.handle_timeout(late);
    assert_eq!((router.state(), due(&router, late)), (VrrpState::Backup, TENTH * 156 / 256));
    router.handle_advert(late + MS, &heard(9, 200));
    assert_eq!(due(&router, late + MS), patience(100), "there was a master");
    // And where there was none it takes over, however late it is again.
    let (mut router, now) = backup(config(5, 100));
    router.handle_timeout(now + Duration::from_secs(5));
    router.handle_timeout(now + Duration::from_secs(10));
    assert_eq!(router.state(), VrrpState::Master);
}

#[test]
fn a_fault_is_a_farewell_and_the_end_of_it_a_new_beginning() {
    let (mut router, now) = master();
    router.set_fault(now + MS, true);
    assert_eq!(
        deeds(&mut router),
        [ElectionOutput::SendAdvert { priority: 0 }, ElectionOutput::ReleaseAddresses]
    );
    assert_eq!((router.state(), router.poll_timeout()), (VrrpState::Fault, None));
    router.handle_advert(now + 2 * MS, &heard(1, 7));
    router.handle_timeout(now + Duration::from_secs(9));
    assert_eq!((router.state(), deeds(&mut router)), (VrrpState::Fault, vec![]));
    router.set_fault(now + Duration::from_secs(10), false);
    assert_eq!(router.state(), VrrpState::Backup);
    assert_eq!(due(&router, now + Duration::from_secs(10)), patience(100));
}

#[test]
fn a_masters_new_priority_is_told_at_once() {
    let (mut router, now) = master();
    router.set_priority(now + MS, 100);
    assert_eq!(deeds(&mut router), []);
    router.set_priority(now + MS, 40);
    assert_eq!(deeds(&mut router), [ElectionOutput::SendAdvert { priority: 40 }]);
    router.set_priority(now + MS, 0);
    assert_eq!(deeds(&mut router), [ElectionOutput::SendAdvert { priority: 1 }], "0 is a farewell");
}

#[test]
fn changes_say_why() {
    let (mut router, now) = master();
    router.handle_advert(now + MS, &heard(9, 200));
    let changes: Vec<_> = outputs(&mut router)
        .into_iter()
        .filter_map(|output| match output {
            ElectionOutput::StateChanged(change) => Some((change.from, change.to, change.reason)),
            _ => None,
        })
        .collect();
    let why = TransitionReason::HigherPriority { priority: 200, source: address(9) };
    assert_eq!(changes, [(VrrpState::Master, VrrpState::Backup, why)]);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let refused = |config| Election::new(config).expect_err("refused");
    assert_eq!(refused(ElectionConfig::new(0, address(1))), VrrpConfigError::Vrid(0));
    assert_eq!(refused(config(1, 0)), VrrpConfigError::Priority(0));
    let six = "fe80::1".parse().expect("an address");
    assert_eq!(
        refused(ElectionConfig::new(1, six).version(VrrpVersion::V2)),
        VrrpConfigError::Ipv6InVersion2(six)
    );
    let error = refused(config(1, 1).interval(Duration::from_millis(15)));
    let text = "an interval of 15ms: version 3 takes 10ms to 40.95s in steps of 10ms";
    assert_eq!(error.to_string(), text);
}
