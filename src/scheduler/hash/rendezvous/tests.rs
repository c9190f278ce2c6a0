use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::*;
use crate::scheduler::Rng;
use crate::scheduler::testing::{backend_name, set_with_weights};
use crate::{BackendSet, Flow, Health, Spec};

#[test]
fn the_cost_is_the_logarithm_and_never_rises() {
    assert_eq!(score_cost(1), 64 << COST_FRACTION_BITS);
    assert_eq!(score_cost(1 << 63), 1 << COST_FRACTION_BITS);
    assert_eq!(score_cost(u64::MAX), 0);
    let mut rng = Rng::with_seed(2);
    for _ in 0..20_000 {
        let hash = (rng.next_u64() >> rng.below(64)) | 1;
        let exact = 64.0 - (hash as f64).log2();
        let ours = score_cost(hash) as f64 / f64::from(1 << 28) / f64::from(1 << 29);
        assert!((ours - exact).abs() < 2e-7, "{hash}: {ours} for {exact}");
        assert!(
            score_cost(hash) <= score_cost((hash - 1) | 1)
                && score_cost(hash) >= score_cost(hash.saturating_add(2))
        );
        assert!(min_score_cost(hash) <= score_cost(hash), "{hash}");
    }
    for step in 0..4096 {
        let hash = u64::MAX - step;
        assert!(
            min_score_cost(hash) <= score_cost(hash) && score_cost(hash) <= score_cost(hash - 1),
            "{step}"
        );
    }
}

#[test]
fn ranks_and_the_best_candidate_have_the_same_order() {
    let snapshot = set_with_weights(&[1, 5, 5, 2, 9, 1, 5, 60_000]).snapshot();
    let field = RendezvousCandidates::new(snapshot.members(), 3, |_| true);
    for key in (0..2000).map(mix_bits) {
        let best = field.best(|name| name.score(key), |_| true).expect("members");
        for only in 0..8 {
            let other = field.best(|name| name.score(key), |i| i == only).expect("admitted");
            assert_eq!(best.is_better_than(&other), only != best.position);
            assert!(!other.is_better_than(&best));
        }
    }
}

#[test]
fn members_win_by_their_weights() {
    for rule in [RendezvousHash::new(), RendezvousHash::table().seed(4)] {
        let snapshot = set_with_weights(&[1, 2, 3, 10, 0, 4]).snapshot();
        let picker = rule.compile(snapshot.members(), None).expect("small");
        let mut counts = [0i64; 6];
        let mut rng = Rng::with_seed(3);
        for key in 0..100_000 {
            let flow = Flow::new().key(key);
            let mut cx = PickContext::new(snapshot.members(), &flow, &mut rng);
            counts[5 - picker.pick(&mut cx).expect("usable")] += 1;
        }
        for (count, weight) in counts.into_iter().zip([1, 2, 3, 10, 0, 4]) {
            // Four deviations of what is binomial.
            let mean = weight * 5000;
            let deviation = (mean as f64 * (1.0 - weight as f64 / 20.0)).sqrt();
            assert!((count - mean).abs() as f64 <= 4.5 * deviation, "{counts:?}");
        }
    }
}

/// The rule of github/glb-director, src/glb-director/tests/rendezvous_table.py, has another
/// score and goes from the lowest up. The vectors are those of its test_rendezvous_table.py.
#[test]
fn the_order_by_siphash_is_that_of_the_glb_director() {
    let seed = 0x49a3_d861_d661_ae5a_b06e_d932_6871_a2f5_u128.to_be_bytes();
    let digest = |parts: &[&[u8]]| {
        let mut hasher = SipHasher24::new_with_key(&seed);
        hasher.write(&parts.concat());
        hasher.finish().to_le_bytes()
    };
    let set = BackendSet::new();
    for host in 1..=4 {
        set.insert(Spec::new(format!("1.1.1.{host}"), ())).expect("new");
    }
    let snapshot = set.snapshot();
    let members = snapshot.members();
    let field = RendezvousCandidates::new(members, 0, |_| true);
    let host_of = |name: NameHashes| -> u8 {
        let member =
            members.iter().find(|m| NameHashes::from_member(m, 0) == name).expect("in the field");
        member.id().as_str()[6..].parse().expect("a digit")
    };
    for (row, row_seed, order) in [
        (0x0000_u32, 0x491c_53a7_2df4_c837_u64, [4, 3, 2, 1]),
        (0xffff, 0xf223_c0cc_6516_1620, [1, 2, 4, 3]),
        (0xbb44, 0xe290_f8f4_30eb_33d3, [4, 1, 2, 3]),
    ] {
        let seed_of_row = digest(&[&row.to_be_bytes()]);
        assert_eq!(u64::from_be_bytes(seed_of_row), row_seed);
        let score = |name| !u64::from_be_bytes(digest(&[&seed_of_row, &[1, 1, 1, host_of(name)]]));
        let mut chosen: Vec<u16> = Vec::new();
        while let Some(rank) = field.best(score, |i| !chosen.contains(&i)) {
            chosen.push(rank.position);
        }
        // The list is newest first.
        assert_eq!(chosen.iter().map(|i| 4 - i).collect::<Vec<_>>(), order);
    }
}

fn owners(picker: &dyn Picker) -> &[u16] {
    &previous_as::<TableRendezvousPicker>(Some(picker)).expect("a table").owners
}

#[test]
fn an_updated_table_equals_a_new_table() {
    let rule = RendezvousHash::new().rows(500).expect("in range").seed(8);
    let set = BackendSet::new();
    let mut rng = Rng::with_seed(5);
    let mut picker = rule.compile(set.snapshot().members(), None).expect("small");
    let mut names: Vec<usize> = Vec::new();
    for i in 0..150 {
        let pick = rng.below(names.len() as u64) as usize;
        match rng.below(6) {
            _ if names.is_empty() => {
                set.insert(Spec::new(backend_name(i), ())).expect("new");
                names.push(i);
            }
            0 | 1 => {
                let weight = 1 + rng.below(4) as u32;
                set.insert(Spec::new(backend_name(i), ()).weight(weight)).expect("new");
                names.push(i);
            }
            2 => {
                set.remove(&backend_name(names.swap_remove(pick)).into()).expect("known");
            }
            3 => {
                let weight = rng.below(4) as u32;
                set.set_weight(&backend_name(names[pick]).into(), weight).expect("known");
            }
            state => {
                let health = if state == 4 { Health::Down } else { Health::Up };
                set.set_health(&backend_name(names[pick]).into(), health).expect("known");
            }
        }
        let snapshot = set.snapshot();
        picker = rule.compile(snapshot.members(), Some(&*picker)).expect("small");
        let anew = rule.compile(snapshot.members(), None).expect("small");
        assert_eq!(owners(&*picker), owners(&*anew));
    }
}

#[test]
fn a_row_goes_to_the_next_member_of_its_order() {
    let set = set_with_weights(&[3, 1, 2, 2, 5]);
    let snapshot = set.snapshot();
    let rule = RendezvousHash::new().rows(64).expect("in range");
    let picker = rule.compile(snapshot.members(), None).expect("small");
    let mut rng = Rng::with_seed(6);
    for key in 0..200 {
        // A retry without a member selects as a set in which that member is down.
        let flow = Flow::new().key(key);
        let mut cx = PickContext::new(snapshot.members(), &flow, &mut rng);
        let first = picker.pick(&mut cx).expect("usable");
        let retry = flow.excluding(&snapshot.backends()[first]);
        let mut cx = PickContext::new(snapshot.members(), &retry, &mut rng);
        let second = picker.pick(&mut cx).expect("usable");
        let id = snapshot.members()[first].id();
        set.set_health(id, Health::Down).expect("known");
        let without = set.snapshot();
        let down = rule.compile(without.members(), Some(&*picker)).expect("small");
        let flow = Flow::new().key(key);
        let mut cx = PickContext::new(without.members(), &flow, &mut rng);
        assert_eq!(down.pick(&mut cx), Some(second));
        set.set_health(id, Health::Up).expect("known");
    }
}
