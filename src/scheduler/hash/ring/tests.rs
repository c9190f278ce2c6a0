use super::*;
use crate::Flow;
use crate::scheduler::Rng;
use crate::scheduler::testing::{backend_name, set_with_weights};

#[test]
fn every_decision_equals_that_of_the_hashring_crate() {
    let cases: [&[u32]; 5] = [&[1], &[3, 1], &[1; 10], &[5, 0, 9, 100], &[2; 200]];
    for (rule, weights) in [RingHash::new(), RingHash::new().replicas(1).expect("in range").seed(5)]
        .into_iter()
        .flat_map(|rule| cases.map(|weights| (rule, weights)))
    {
        let snapshot = set_with_weights(weights).snapshot();
        let members = snapshot.members();
        let ring = rule.build_ring(members);
        let picker = rule.compile(members, None).expect("small");
        let mut rng = Rng::with_seed(3);
        for key in (0..2000).chain((0..2000).map(|k| mix_bits(k ^ 77))) {
            let flow = Flow::new().key(key);
            let pick = picker.pick(&mut PickContext::new(members, &flow, &mut rng));
            let owner = ring.get(&(key ^ mix_bits(rule.seed))).map(|point| point.owner as usize);
            // A member of weight 0 from the start has no points.
            assert_eq!(pick, owner);
        }
    }
}

#[test]
fn hashes_at_the_edges_of_buckets_and_of_the_circle_have_the_owner_of_the_ring() {
    let snapshot = set_with_weights(&[1; 7]).snapshot();
    let rule = RingHash::new().replicas(3).expect("in range");
    let ring = rule.build_ring(snapshot.members());
    let flat = BucketedRing::new(ring.clone());
    let sorted: Vec<(u64, u32)> =
        ring.into_iter().map(|p| (DefaultHashBuilder.hash_one(p), p.owner)).collect();
    let by_hand = |hash| {
        let at = sorted.partition_point(|&(point, _)| point < hash);
        sorted[at % sorted.len()].1 as usize
    };
    let edges = sorted.iter().flat_map(|&(p, _)| [p - 1, p, p + 1]);
    let buckets = (0..1u64 << flat.bucket_bits).map(|b| b << (64 - flat.bucket_bits));
    for hash in edges.chain(buckets).chain([0, u64::MAX]) {
        assert_eq!(flat.owner(hash), Some(by_hand(hash)));
        let walked: Vec<_> = flat.owners_clockwise(hash).collect();
        let at = sorted.partition_point(|&(point, _)| point < hash);
        let turn = sorted[at..].iter().chain(&sorted[..at]);
        assert_eq!(walked, turn.map(|&(_, owner)| owner as usize).collect::<Vec<_>>());
    }
}

#[test]
fn keys_of_an_unusable_owner_go_to_the_next_clockwise() {
    let set = set_with_weights(&[1; 20]);
    set.set_weight(&backend_name(4).into(), 0).expect("known");
    set.set_health(&backend_name(9).into(), crate::Health::Down).expect("known");
    let snapshot = set.snapshot();
    let members = snapshot.members();
    let picker = RingHash::new().compile(members, None).expect("small");
    let sorted: Vec<_> = RingHash::new().build_ring(members).into_iter().collect();
    let mut rng = Rng::with_seed(3);
    for key in 0..2000u64 {
        let flow = Flow::new().key(key);
        let pick = picker.pick(&mut PickContext::new(members, &flow, &mut rng));
        let hash = DefaultHashBuilder.hash_one(key);
        let at = sorted.partition_point(|p| DefaultHashBuilder.hash_one(p) < hash);
        let next = sorted[at..].iter().chain(&sorted[..at]);
        let expected = next.map(|p| p.owner as usize).find(|&i| members[i].share() != 0);
        assert_eq!(pick, expected);
    }
}

#[test]
fn the_number_of_points_follows_weights_and_is_bounded() {
    let count = |weights: &[u32], replicas| {
        let mut points =
            points_per_member(set_with_weights(weights).snapshot().members(), replicas);
        points.reverse();
        points
    };
    assert_eq!(count(&[10, 15, 20, 0], 160), [160, 240, 320, 0]);
    assert_eq!(count(&[3, 4], 1), [1, 1]);
    assert_eq!(count(&[3, 5], 1), [1, 2]);
    let scaled = count(&[65_535, 1, 32_768], 160);
    assert!(scaled.iter().sum::<u64>() <= MAX_POINTS);
    assert_eq!(scaled[1], 2);
    assert!(scaled[0].abs_diff(2 * scaled[2]) <= 20);
    assert!(count(&[], 160).is_empty());
}

#[test]
fn the_evenness_of_shares_is_as_documented() {
    // The published simulation has 1.12, 1.20 and 1.26.
    for (members, seeds, stated) in [(10, 20, 1.12), (100, 20, 1.20), (500, 6, 1.26)] {
        let snapshot = set_with_weights(&vec![1; members]).snapshot();
        let peak_to_mean = (0..seeds).map(|seed| {
            let ring = RingHash::new().seed(seed).build_ring(snapshot.members());
            let mut arcs = vec![0u64; members];
            let mut before = 0;
            let mut first = None;
            for point in ring {
                let hash = DefaultHashBuilder.hash_one(point);
                arcs[point.owner as usize] += hash - before;
                before = hash;
                first.get_or_insert(point.owner as usize);
            }
            arcs[first.expect("points")] += u64::MAX - before;
            arcs.into_iter().max().expect("members") as f64 * members as f64 / 2f64.powi(64)
        });
        let mean = peak_to_mean.sum::<f64>() / seeds as f64;
        assert!((mean - stated).abs() < 0.02, "{members} members: {mean}");
    }
}

#[test]
fn a_change_of_state_keeps_the_ring() {
    let set = set_with_weights(&[1, 2, 3]);
    let old = RingHash::new().compile(set.snapshot().members(), None).expect("small");
    set.set_weight(&backend_name(1).into(), 0).expect("known");
    let new = RingHash::new().compile(set.snapshot().members(), Some(&*old)).expect("small");
    let flat = |picker: &dyn Picker| {
        Arc::clone(&previous_as::<RingHashPicker>(Some(picker)).expect("ours").ring)
    };
    assert!(Arc::ptr_eq(&flat(&*old), &flat(&*new)));
}
