//! Export and import of ejections.

use lvs::health::EjectionPolicy;
use lvs::health::outlier::{EjectionAction, Ejector, SavedEjection, SavedEjectionPhase};
use lvs::scheduler::Rng;

use super::test_bed::{EjectorTestBed, secs, start};

/// Returns an ejector after a restart: it tracks its members, and none is ejected.
fn restart(members: u64) -> Ejector {
    let mut ejector = Ejector::new(EjectionPolicy::new(), Rng::with_seed(2));
    (1..=members).for_each(|serial| ejector.track(serial, true, true));
    ejector
}

#[test]
fn ejections_trials_and_multipliers_survive_serialization() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 30);
    bed.eject(3);
    bed.run_until_trial();
    let _ = bed.ejector.handle_trial_end(bed.now, 3, true);
    bed.eject(1);
    bed.eject(2);
    assert_eq!(bed.run_until_trial(), [1, 2]);
    assert_eq!(bed.eject(4), secs(30), "the third ejection, of three allowed");
    bed.advance(secs(10));

    let saved: Vec<(u64, SavedEjection)> = bed.ejector.export(bed.now).collect();
    let text = serde_json::to_string(&saved).expect("state serializes");
    let read: Vec<(u64, SavedEjection)> = serde_json::from_str(&text).expect("state deserializes");
    assert_eq!(read, saved);
    assert_eq!(saved.len(), 4, "1 and 2 on trial, 3 with a multiplier, 4 ejected: {text}");

    let mut restarted = restart(30);
    let later = start() + secs(1_000_000);
    let decisions: Vec<_> =
        read.iter().filter_map(|&(serial, saved)| restarted.import(later, serial, saved)).collect();
    let actions: Vec<_> =
        decisions.iter().map(|decision| (decision.serial, decision.action)).collect();
    assert_eq!(actions[..2], [(1, EjectionAction::StartTrial), (2, EjectionAction::StartTrial)]);
    assert!(
        matches!(actions[2], (4, EjectionAction::Eject { until, .. }) if until == later + secs(20))
    );
    assert_eq!(restarted.export(later).collect::<Vec<_>>(), saved);
    assert_eq!(restarted.poll_timeout(), Some(later + secs(20)));
    assert_eq!(restarted.counters().imported, 3);
}

#[test]
fn time_between_export_and_import_can_be_subtracted() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 2);
    bed.eject(1);
    let (_, saved) = bed.ejector.export(bed.now).next().expect("one member is ejected");
    let remaining = |saved: SavedEjection| match saved.phase {
        SavedEjectionPhase::Ejected { remaining, .. } => remaining,
        phase => panic!("not ejected: {phase:?}"),
    };
    assert_eq!(remaining(saved.after(secs(12))), secs(18));
    assert_eq!(remaining(saved.after(secs(40))), secs(0));
}

#[test]
fn import_limits_times_and_multipliers_to_the_policy() {
    let mut bed = EjectorTestBed::new(EjectionPolicy::new(), 2);
    bed.eject(1);
    let (_, mut saved) = bed.ejector.export(bed.now).next().expect("one member is ejected");
    saved.multiplier = u32::MAX;
    if let SavedEjectionPhase::Ejected { remaining, .. } = &mut saved.phase {
        *remaining = std::time::Duration::MAX;
    }
    let mut restarted = restart(2);
    let now = start();
    assert!(restarted.import(now, 1, saved).is_some());
    assert_eq!(restarted.poll_timeout(), Some(now + secs(300)));
    assert_eq!(restarted.ejection_state(1).expect("a tracked member").multiplier, 10);
    assert_eq!(restarted.import(now, 2, saved), None, "the last available member");
    assert_eq!(restarted.import(now, 1, saved), None, "the member is ejected already");
    assert_eq!(restarted.import(now, 3, saved), None, "the member is not tracked");
}
