//! What survives a restart.

use lvs::health::outlier::{
    EjectionAction, EjectionPolicy, Ejector, SavedEjection, SavedEjectionPhase,
};
use lvs::scheduler::Rng;

use super::world::{World, secs, start};

fn empty(members: u64) -> Ejector {
    let mut ejector =
        Ejector::new(EjectionPolicy::new(), Rng::with_seed(2)).expect("they make sense");
    (1..=members).for_each(|serial| ejector.track(serial, true, true));
    ejector
}

#[test]
fn ejections_trials_and_multipliers_come_through_as_text() {
    let mut world = World::new(EjectionPolicy::new(), 30);
    world.eject(3);
    world.run_to_trial();
    let _ = world.ejector.handle_trial_end(world.now, 3, true);
    world.eject(1);
    world.eject(2);
    assert_eq!(world.run_to_trial(), [1, 2]);
    assert_eq!(world.eject(4), secs(30), "the third of three");
    world.wait(secs(10));

    let saved: Vec<(u64, SavedEjection)> = world.ejector.export(world.now).collect();
    let text = serde_json::to_string(&saved).expect("it can be written");
    let read: Vec<(u64, SavedEjection)> = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(read, saved);
    assert_eq!(saved.len(), 4, "1 and 2 on trial, 3 with a multiplier, 4 out: {text}");

    let mut restarted = empty(30);
    let later = start() + secs(1_000_000);
    let decisions: Vec<_> =
        read.iter().filter_map(|&(serial, it)| restarted.import(later, serial, it)).collect();
    let actions: Vec<_> = decisions.iter().map(|it| (it.serial, it.action)).collect();
    assert_eq!(actions[..2], [(1, EjectionAction::StartTrial), (2, EjectionAction::StartTrial)]);
    assert!(
        matches!(actions[2], (4, EjectionAction::Eject { until, .. }) if until == later + secs(20))
    );
    assert_eq!(restarted.export(later).collect::<Vec<_>>(), saved);
    assert_eq!(restarted.poll_timeout(), Some(later + secs(20)));
    assert_eq!(restarted.counters().imported, 3);
}

#[test]
fn the_time_in_between_can_be_taken_off() {
    let mut world = World::new(EjectionPolicy::new(), 2);
    world.eject(1);
    let (_, saved) = world.ejector.export(world.now).next().expect("one is out");
    let remaining = |it: SavedEjection| match it.phase {
        SavedEjectionPhase::Ejected { remaining, .. } => remaining,
        other => panic!("not out: {other:?}"),
    };
    assert_eq!(remaining(saved.after(secs(12))), secs(18));
    assert_eq!(remaining(saved.after(secs(40))), secs(0));
}

#[test]
fn a_file_that_lies_puts_nobody_out_for_longer_than_the_rules_do() {
    let mut world = World::new(EjectionPolicy::new(), 2);
    world.eject(1);
    let (_, mut saved) = world.ejector.export(world.now).next().expect("one is out");
    saved.multiplier = u32::MAX;
    if let SavedEjectionPhase::Ejected { remaining, .. } = &mut saved.phase {
        *remaining = std::time::Duration::MAX;
    }
    let mut restarted = empty(2);
    let now = start();
    assert!(restarted.import(now, 1, saved).is_some());
    assert_eq!(restarted.poll_timeout(), Some(now + secs(300)));
    assert_eq!(restarted.ejection_state(1).expect("a member").multiplier, 10);
    assert_eq!(restarted.import(now, 2, saved), None, "the last that is left");
    assert_eq!(restarted.import(now, 1, saved), None, "it is out already");
    assert_eq!(restarted.import(now, 3, saved), None, "nobody told of it");
}
