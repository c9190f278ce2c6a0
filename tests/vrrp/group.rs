//! Routers that are master together.

use std::time::Instant;

use crate::world::*;

/// Two routers of number 5, and when they are due at the latest.
fn group() -> (VrrpSyncGroup, Instant) {
    let mut group = VrrpSyncGroup::new([config(5, 100), config(5, 90)]).expect("sound");
    let now = start();
    group.start(now);
    (group, now)
}

fn states(group: &VrrpSyncGroup) -> Vec<VrrpState> {
    group.members().iter().map(Election::state).collect()
}

fn run(
    group: &mut VrrpSyncGroup,
    until: Instant,
    mut hears: impl FnMut(&mut VrrpSyncGroup, Instant),
) {
    while let Some(now) = group.poll_timeout().filter(|now| *now <= until) {
        hears(group, now);
        group.handle_timeout(now);
    }
}

fn drain(group: &mut VrrpSyncGroup) -> Vec<(usize, ElectionOutput)> {
    std::iter::from_fn(|| group.poll_output()).collect()
}

#[test]
fn they_take_over_when_all_would() {
    let (mut group, now) = group();
    // The second still hears a master.
    for turn in 1..=30 {
        let now = now + turn * TENTH;
        group.handle_advert(now, 1, &heard(9, 200));
        group.handle_timeout(now);
        assert_eq!(states(&group), [VrrpState::Backup; 2]);
    }
    let mut last = now;
    run(&mut group, now + 40 * TENTH, |group, now| {
        if states(group) == [VrrpState::Backup; 2] {
            last = now;
        }
    });
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    let taken: Vec<_> = drain(&mut group)
        .into_iter()
        .filter(|it| it.1 == ElectionOutput::AcquireAddresses)
        .collect();
    assert_eq!(
        taken,
        [(0, ElectionOutput::AcquireAddresses), (1, ElectionOutput::AcquireAddresses)]
    );
}

#[test]
fn one_that_gives_way_takes_the_others_along() {
    let (mut group, now) = group();
    run(&mut group, now + 20 * TENTH, |_, _| {});
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    drain(&mut group);
    group.handle_advert(now + 20 * TENTH, 0, &heard(9, 200));
    assert_eq!(states(&group), [VrrpState::Backup; 2]);
    let outputs = drain(&mut group);
    assert!(
        outputs.contains(&(0, ElectionOutput::ReleaseAddresses))
            && outputs.contains(&(1, ElectionOutput::ReleaseAddresses))
    );
    assert!(
        outputs.contains(&(1, ElectionOutput::SendAdvert { priority: 0 })),
        "the peer need not wait"
    );
    assert!(
        !outputs.contains(&(0, ElectionOutput::SendAdvert { priority: 0 })),
        "the peer is there"
    );
}

#[test]
fn the_fault_of_one_is_that_of_all_until_it_is_over() {
    let (mut group, now) = group();
    run(&mut group, now + 20 * TENTH, |_, _| {});
    group.set_fault(now + 20 * TENTH, 0, true);
    group.set_fault(now + 20 * TENTH, 1, true);
    group.set_fault(now + 21 * TENTH, 0, false);
    assert_eq!(states(&group), [VrrpState::Fault; 2]);
    group.set_fault(now + 22 * TENTH, 1, false);
    assert_eq!(states(&group), [VrrpState::Backup; 2]);
    run(&mut group, now + 40 * TENTH, |_, _| {});
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    group.stop(now + 41 * TENTH);
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    drain(&mut group);
    // One has a successor: so have all.
    group.handle_advert(now + 41 * TENTH, 1, &heard(9, 50));
    assert_eq!(states(&group), [VrrpState::Init; 2]);
    let outputs = drain(&mut group);
    assert!(
        outputs.contains(&(0, ElectionOutput::ReleaseAddresses))
            && outputs.contains(&(1, ElectionOutput::ReleaseAddresses))
    );
}

#[test]
fn owners_take_over_together_and_at_once() {
    let mut group = VrrpSyncGroup::new([config(5, 255), config(5, 255)]).expect("sound");
    let now = start();
    group.start(now);
    group.handle_timeout(now);
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    group.handle_advert(now, 7, &heard(9, 200));
    assert!(VrrpSyncGroup::new([config(1, 1), config(1, 0)]).is_err());
}
