use super::*;
use crate::scheduler::testing::{balancer, id, percentages, position, sequence};
use crate::scheduler::{Flow, Rng};
use crate::{Limits, PickError};

const RULE: SmoothWeightedRoundRobin = SmoothWeightedRoundRobin::new();

fn round(weights: &[u32]) -> Vec<usize> {
    let balancer = balancer(RULE, weights);
    lay_out_round(&slot_quotas(balancer.snapshot().members()))
        .iter()
        .map(|&i| usize::from(i))
        .collect()
}

fn occurrences(round: &[usize], members: usize) -> Vec<u32> {
    let mut counts = vec![0; members];
    round.iter().for_each(|&i| counts[i] += 1);
    counts
}

#[test]
fn weights_5_1_1_give_nginx_s_sequence() {
    assert_eq!(round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(sequence(&balancer(RULE, &[5, 1, 1]), 9), [0, 0, 1, 0, 2, 0, 0, 0, 0]);
}

#[test]
fn equal_weights_take_turns_in_list_order() {
    assert_eq!(round(&[7, 7, 7]), [0, 1, 2]);
    assert_eq!(round(&[3, 0, 3]), [0, 2]);
}

#[test]
fn no_member_is_ever_a_whole_slot_ahead_or_behind() {
    let mut rng = Rng::with_seed(1);
    for n in [2, 3, 5, 17, 64] {
        for max in [2, 10, 300] {
            let weights: Vec<u32> = (0..n).map(|_| 1 + rng.below(max) as u32).collect();
            let round = round(&weights);
            let sum: u32 = weights.iter().sum();
            let mut given = vec![0.0; n];
            let bound = 1.0 - 1.0 / (2.0 * n as f64 - 2.0) + 1e-9;
            for (place, &member) in (1..).zip(&round) {
                given[member] += 1.0;
                for (given, &weight) in given.iter().zip(&weights) {
                    let due = f64::from(place) * f64::from(weight) / f64::from(sum);
                    assert!((given - due).abs() <= bound, "{weights:?} at {place}");
                }
            }
        }
    }
}

#[test]
fn any_window_of_one_round_has_each_member_as_often_as_its_slots() {
    let weights = [4, 10, 0, 6, 2];
    let picks = sequence(&balancer(RULE, &weights), 33);
    for window in picks.windows(11) {
        assert_eq!(occurrences(window, 5), [2, 5, 0, 3, 1]);
    }
}

#[test]
fn large_sums_are_scaled_and_the_lightest_members_keep_a_slot() {
    let counts = occurrences(&round(&[65_535, 65_534, 65_533, 1, 0]), 5);
    assert_eq!(counts, [21_845, 21_845, 21_845, 1, 0]);
    let mut weights = [65_521; 1000];
    weights[..500].fill(3);
    let counts = occurrences(&round(&weights), 1000);
    assert_eq!(counts.iter().sum::<u32>(), 65_536);
    assert!(counts[..500].iter().all(|&slots| slots == 1));
    assert!(counts[500..].iter().all(|&slots| (130..=131).contains(&slots)));
}

#[test]
fn scaled_shares_are_exact_to_one_slot() {
    let mut rng = Rng::with_seed(2);
    let weights: Vec<u32> = (0..1000).map(|_| 2_000 + rng.below(60_000) as u32).collect();
    let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
    for (slots, &weight) in occurrences(&round(&weights), 1000).into_iter().zip(&weights) {
        let ideal = f64::from(weight) * 65_536.0 / sum as f64;
        assert!((f64::from(slots) - ideal).abs() < 1.0, "{slots} for {ideal}");
    }
}

#[test]
fn with_offsets_a_light_member_has_its_share_of_first_picks() {
    let first = |seed| sequence(&balancer(RULE.offset(seed), &[99, 1]), 1)[0];
    let light: usize = (0..5000).map(first).sum();
    assert!((30..=70).contains(&light), "{light} of 5000 is not about 1 %");
}

#[test]
fn the_offset_is_kept_while_a_set_grows() {
    let balancer = balancer(RULE.offset(1), &[]);
    let id = |i: usize| crate::Spec::new(id(i), ());
    for i in (0..8).rev() {
        balancer.backend_set().insert(id(i)).expect("room");
    }
    let whole = crate::scheduler::testing::balancer(RULE.offset(1), &[1; 8]);
    assert_eq!(sequence(&balancer, 8), sequence(&whole, 8));
    assert_ne!(sequence(&balancer, 1), [0], "a seed that begins elsewhere");
}

#[test]
fn the_phase_is_kept_when_the_set_changes() {
    let balancer = balancer(RULE, &[1, 1, 1, 1]);
    assert_eq!(sequence(&balancer, 2), [0, 1]);
    balancer.backend_set().set_limits(&id(0), Limits::new(9)).expect("a limit");
    assert_eq!(sequence(&balancer, 1), [2], "the same round, the next turn");
    (0..4).for_each(|i| balancer.backend_set().set_weight(&id(i), 3 - i as u32).expect("a member"));
    assert_eq!(round(&[3, 2, 1, 0]), [0, 1, 0, 2, 1, 0]);
    assert_eq!(sequence(&balancer, 2), [1, 0], "three quarters of the way, to the slot");
    (0..4).for_each(|i| balancer.backend_set().set_weight(&id(i), 0).expect("a member"));
    (0..4).for_each(|i| balancer.backend_set().set_weight(&id(i), 1).expect("a member"));
}

#[test]
fn the_phase_is_exact_for_every_length_of_the_round() {
    for len in 1..300u16 {
        let slots: Box<[u16]> = (0..len).collect();
        for start in 0..usize::from(len) {
            let round = SmoothWeightedRoundRobinPicker::new(slots.clone(), 0);
            round.advance(start);
            let again = SmoothWeightedRoundRobinPicker::new(slots.clone(), round.phase());
            assert_eq!(again.slot_of_cursor(again.advance(1)), start, "of {len}");
        }
    }
}

#[test]
fn a_reset_of_the_cursor_loses_no_slot() {
    for len in [1, 2, 3, 7, 1000, 65_535, 65_536] {
        let round = SmoothWeightedRoundRobinPicker::new(vec![0; len].into(), 0);
        round.advance(round.cursor_reset - 2);
        let mut expected = round.slot_of_cursor(round.cursor_reset - 2);
        for steps in [1, 5, 1, 1] {
            assert_eq!(round.slot_of_cursor(round.advance(steps)), expected);
            expected = (expected + steps) % len;
        }
        assert!(round.cursor.load(Ordering::Relaxed) < 10, "it was set back");
    }
}

#[test]
fn a_full_member_does_not_change_order_and_proportion_of_the_others() {
    let balancer = balancer(RULE, &[5, 2, 1]);
    balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
    let held = balancer.lease_by_id(&id(0)).expect("a free place");
    let picks = sequence(&balancer, 12);
    assert!(picks.windows(3).all(|window| occurrences(window, 3) == [0, 2, 1]), "{picks:?}");
    drop(held);
    assert_eq!(occurrences(&sequence(&balancer, 8), 3), [5, 2, 1]);
}

#[test]
fn a_light_member_is_found_behind_any_number_of_full_slots() {
    let balancer = balancer(RULE, &[65_534, 1, 1]);
    balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
    let _held = balancer.lease_by_id(&id(0)).expect("a free place");
    assert_eq!(percentages(&balancer, 100)[0], 0.0);
}

#[test]
fn tried_members_are_excluded_and_skip_no_slot_of_others() {
    let balancer = balancer(RULE, &[1, 1, 1]);
    let snapshot = balancer.snapshot();
    let mut flow = Flow::new().excluding(&snapshot.backends()[0]);
    assert_eq!(balancer.pick(&flow).map(|lease| position(&lease)), Ok(1));
    assert_eq!(sequence(&balancer, 3), [1, 2, 0]);
    flow.exclude(&snapshot.backends()[1]);
    flow.exclude(&snapshot.backends()[2]);
    assert_eq!(balancer.pick(&flow).err(), Some(PickError::AllTried));
}

#[test]
fn a_single_member_gets_every_pick_and_weight_zero_none() {
    assert_eq!(sequence(&balancer(RULE, &[0, 9]), 3), [1, 1, 1]);
    let none = balancer(RULE, &[0, 0]);
    assert_eq!(none.pick(&Flow::new()).err(), Some(PickError::AllQuiesced));
}
