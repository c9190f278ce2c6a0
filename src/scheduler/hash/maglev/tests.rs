use super::*;
use crate::scheduler::Rng;
use crate::scheduler::testing::{backend_name, set_with_weights};
use crate::{BackendSet, Flow, Spec};

fn slots(weights: &[u32], size: usize) -> Vec<u16> {
    let rule = Maglev::new().size(size).expect("a prime");
    fill_slots(set_with_weights(weights).snapshot().members(), &rule)
}

/// Returns the number of slots of each member, in the order of `weights`.
fn counts(weights: &[u32], size: usize) -> Vec<usize> {
    let mut counts = vec![0; weights.len()];
    for owner in slots(weights, size) {
        // The list is newest first.
        counts[weights.len() - 1 - usize::from(owner)] += 1;
    }
    counts
}

#[test]
fn slots_follow_weights_as_published() {
    // Katran, katran/lib/tests/MaglevHashTest.cpp and CHHelpersTest.cpp.
    let equal = counts(&[1; 400], 65_537);
    assert_eq!(equal.iter().max().unwrap() - equal.iter().min().unwrap(), 1);
    assert_eq!(counts(&[2, 1, 1], 65_537), [32_769, 16_384, 16_384]);
    assert_eq!(counts(&[2, 1], 7), [5, 2]);
    assert!(slots(&[], 65_537).is_empty());
    // Envoy, maglev_lb_test.cc.
    assert!(counts(&[1; 6], 7).iter().all(|n| (1..=2).contains(n)));
    assert_eq!(counts(&[1, 2], 65_537), [21_846, 43_691]);
    // Cilium, pkg/maglev/maglev_test.go has 16/98/832/75; exact shares are 15.01, 97.6, 833.3
    // and 75.1.
    assert_eq!(counts(&[2, 13, 111, 10], 1021), [15, 98, 833, 75]);
}

#[test]
fn every_share_is_exact_to_less_than_one_slot() {
    let mut rng = Rng::with_seed(11);
    for n in [2usize, 3, 17, 250] {
        let weights: Vec<u32> = (0..n).map(|_| 1 + rng.below(100) as u32).collect();
        let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
        for (&weight, count) in weights.iter().zip(counts(&weights, 65_537)) {
            let off = (u64::from(weight) * 65_537).abs_diff(count as u64 * sum);
            assert!(off < sum, "weight {weight} of {sum} has {count} slots");
        }
    }
}

#[test]
fn every_member_has_a_slot() {
    assert_eq!(counts(&[65_535, 1, 65_535], 7), [3, 1, 3]);
    let counts = counts(&[1, 65_535, 65_535, 1, 0], 13);
    assert_eq!((counts[0], counts[1] + counts[2], counts[3], counts[4]), (1, 11, 1, 0));
}

/// The paper's pseudo-code, for equal weights.
fn textbook(names: &[&str], size: u64) -> Vec<usize> {
    let way = |name: &str| {
        let hash = |seed| u128::from(hash_bytes(name.as_bytes(), seed));
        let offset = (hash(0) * u128::from(size)) >> 64;
        let skip = ((hash(!0) * u128::from(size - 1)) >> 64) + 1;
        move |j: u64| ((offset + u128::from(j) * skip) % u128::from(size)) as usize
    };
    let ways: Vec<_> = names.iter().map(|name| way(name)).collect();
    let (mut next, mut entry) = (vec![0; names.len()], vec![usize::MAX; size as usize]);
    let mut filled = 0;
    loop {
        for i in 0..names.len() {
            let mut c = ways[i](next[i]);
            while entry[c] != usize::MAX {
                next[i] += 1;
                c = ways[i](next[i]);
            }
            entry[c] = i;
            next[i] += 1;
            filled += 1;
            if filled == size {
                return entry;
            }
        }
    }
}

#[test]
fn equal_weights_give_the_table_of_the_paper() {
    let set = set_with_weights(&[5; 23]);
    let snapshot = set.snapshot();
    let mut names: Vec<_> = snapshot.members().iter().map(|m| m.id().as_str()).collect();
    names.sort_by_key(|name| hash_bytes(name.as_bytes(), 0));
    let ours = slots(&[5; 23], 1021);
    for (slot, owner) in textbook(&names, 1021).into_iter().enumerate() {
        assert_eq!(snapshot.members()[usize::from(ours[slot])].id().as_str(), names[owner]);
    }
}

#[test]
fn shares_and_moved_keys_are_as_documented() {
    // The published simulation: 1.0000, 1.0010, 1.0071 and 0.28 %, 0.55 %, 0.57 %.
    for (members, peak, needless) in [(10, 1.0001, 0.3), (100, 1.0011, 0.6), (1000, 1.0072, 0.6)] {
        let counts = counts(&vec![1; members], 65_537);
        let most = *counts.iter().max().expect("members") as f64;
        assert!(most * members as f64 / 65_537.0 <= peak, "{members} members: {most}");

        let before = slots(&vec![1; members], 65_537);
        let mut moved = 0;
        for i in 0..5 {
            let gone = members / 7 * i + i;
            let set = set_with_weights(&vec![1; members]);
            let id = set.snapshot().members()[gone].id().clone();
            set.remove(&id).expect("known");
            let after = fill_slots(set.snapshot().members(), &Maglev::new());
            moved += (before.iter().zip(&after))
                .map(|(&before, &after)| (usize::from(before), usize::from(after)))
                .filter(|&(before, _)| before != gone)
                .filter(|&(before, after)| before - usize::from(before > gone) != after)
                .count();
        }
        let percent = moved as f64 / 5.0 / 655.37;
        assert!((percent - needless).abs() < 0.1, "{members} members: {percent} %");
    }
}

#[test]
fn the_table_does_not_depend_on_the_order_of_configuration() {
    let (ascending, descending) = (BackendSet::new(), BackendSet::new());
    for i in 0..40 {
        ascending.insert(Spec::new(backend_name(i), ()).weight(1 + i as u32 % 3)).expect("sound");
        let i = 39 - i;
        descending.insert(Spec::new(backend_name(i), ()).weight(1 + i as u32 % 3)).expect("sound");
    }
    let names = |set: &BackendSet<()>| -> Vec<_> {
        let snapshot = set.snapshot();
        let slots = fill_slots(snapshot.members(), &Maglev::new());
        slots.iter().map(|&i| snapshot.members()[usize::from(i)].id().clone()).collect()
    };
    assert!(names(&ascending) == names(&descending));
}

#[test]
fn a_size_that_does_not_work_is_refused() {
    for size in [0, 1, 4, 65_536] {
        let error = Maglev::new().size(size).expect_err("not prime").to_string();
        let expected = "is not a prime number from 2 to 16777216";
        assert_eq!(error, format!("maglev: size={size} {expected}"));
    }
    // The smallest prime above 2^24.
    assert!(Maglev::new().size((1 << 24) + 43).is_err());
    let snapshot = set_with_weights(&[1; 8]).snapshot();
    let small = Maglev::new().size(7).expect("a prime");
    let refused = small.compile(snapshot.members(), None).unwrap_err();
    assert!(matches!(refused, CompileError::TooManyMembers { members: 8, max: 7 }));
}

#[test]
fn a_change_of_state_keeps_the_table() {
    let set = set_with_weights(&[1, 2, 3]);
    let old = Maglev::new().compile(set.snapshot().members(), None).expect("small");
    set.set_weight(&backend_name(1).into(), 0).expect("known");
    let new = Maglev::new().compile(set.snapshot().members(), Some(&*old)).expect("small");
    let slots = |picker: &dyn Picker| {
        Arc::clone(&previous_as::<MaglevPicker>(Some(picker)).expect("ours").slots)
    };
    assert!(Arc::ptr_eq(&slots(&*old), &slots(&*new)));
    let other = Maglev::new().seed(1);
    let other = other.compile(set.snapshot().members(), Some(&*old)).expect("small");
    assert!(slots(&*old) != slots(&*other));
}

#[test]
fn keys_of_an_unusable_member_spread_by_weight() {
    let set = set_with_weights(&[6, 1, 2, 3]);
    let snapshot =
        set.set_weight(&backend_name(0).into(), 0).map(|()| set.snapshot()).expect("known");
    let members = snapshot.members();
    let picker = Maglev::new().compile(members, None).expect("small");
    let mut rng = Rng::with_seed(1);
    let mut counts = [0; 4];
    for key in 0..24_000 {
        let flow = Flow::new().key(key);
        let pick = picker.pick(&mut PickContext::new(members, &flow, &mut rng));
        counts[3 - pick.expect("three are usable")] += 1;
    }
    assert_eq!(counts[0], 0);
    for (count, share) in counts[1..].iter().zip([4000, 8000, 12_000]) {
        assert!((share * 95 / 100..share * 105 / 100).contains(count), "{counts:?}");
    }
}
