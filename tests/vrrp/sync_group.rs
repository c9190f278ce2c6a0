//! Groups of virtual routers that are master together.

use std::time::Instant;

use crate::world::*;

/// Returns a started group of two virtual routers, and the time.
fn group() -> (VrrpSyncGroup, Instant) {
    let mut group =
        VrrpSyncGroup::new([config(5, 100), config(5, 90)]).expect("the configurations are valid");
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
    mut before_timeout: impl FnMut(&mut VrrpSyncGroup, Instant),
) {
    while let Some(now) = group.poll_timeout().filter(|now| *now <= until) {
        before_timeout(group, now);
        group.handle_timeout(now);
    }
}

fn drain(group: &mut VrrpSyncGroup) -> Vec<(usize, ElectionOutput)> {
    std::iter::from_fn(|| group.poll_output()).collect()
}

#[test]
fn a_group_becomes_master_when_every_member_would() {
    let (mut group, now) = group();
    // The second member receives a master's advertisements.
    for turn in 1..=30 {
        let now = now + turn * TENTH;
        group.handle_advert(now, 1, &advert(9, 200));
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
    let acquired: Vec<_> = drain(&mut group)
        .into_iter()
        .filter(|(_, output)| *output == ElectionOutput::AcquireAddresses)
        .collect();
    assert_eq!(
        acquired,
        [(0, ElectionOutput::AcquireAddresses), (1, ElectionOutput::AcquireAddresses)]
    );
}

#[test]
fn all_members_become_backup_when_one_yields() {
    let (mut group, now) = group();
    run(&mut group, now + 20 * TENTH, |_, _| {});
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    drain(&mut group);
    group.handle_advert(now + 20 * TENTH, 0, &advert(9, 200));
    assert_eq!(states(&group), [VrrpState::Backup; 2]);
    let outputs = drain(&mut group);
    assert!(
        outputs.contains(&(0, ElectionOutput::ReleaseAddresses))
            && outputs.contains(&(1, ElectionOutput::ReleaseAddresses))
    );
    assert!(
        outputs.contains(&(1, ElectionOutput::SendAdvert { priority: 0 })),
        "the other member resigns, so that its peer need not wait"
    );
    assert!(
        !outputs.contains(&(0, ElectionOutput::SendAdvert { priority: 0 })),
        "the member that yields does not resign: its peer is master"
    );
}

#[test]
fn a_fault_of_one_member_is_a_fault_of_all_until_it_is_cleared() {
    let (mut group, now) = group();
    run(&mut group, now + 20 * TENTH, |_, _| {});
    group.set_fault(now + 20 * TENTH, 0, Some("link"));
    group.set_fault(now + 20 * TENTH, 1, Some("link"));
    group.set_fault(now + 21 * TENTH, 0, None);
    assert_eq!(states(&group), [VrrpState::Fault; 2]);
    group.set_fault(now + 22 * TENTH, 1, None);
    assert_eq!(states(&group), [VrrpState::Backup; 2]);
    run(&mut group, now + 40 * TENTH, |_, _| {});
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    group.stop(now + 41 * TENTH);
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    drain(&mut group);
    // One member has a successor: all release their addresses.
    group.handle_advert(now + 41 * TENTH, 1, &advert(9, 50));
    assert_eq!(states(&group), [VrrpState::Init; 2]);
    let outputs = drain(&mut group);
    assert!(
        outputs.contains(&(0, ElectionOutput::ReleaseAddresses))
            && outputs.contains(&(1, ElectionOutput::ReleaseAddresses))
    );
}

#[test]
fn owners_become_master_together_and_at_once() {
    let mut group =
        VrrpSyncGroup::new([config(5, 255), config(5, 255)]).expect("the configurations are valid");
    let now = start();
    group.start(now);
    group.handle_timeout(now);
    assert_eq!(states(&group), [VrrpState::Master; 2]);
    group.handle_advert(now, 7, &advert(9, 200));
    assert!(VrrpSyncGroup::new([config(1, 1), config(1, 0)]).is_err());
}
