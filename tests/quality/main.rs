//! How evenly the rules spread work, measured in a small simulation.
#![cfg(not(lvs_loom))]

#[path = "../common/schedulers.rs"]
mod schedulers;
mod simulation;
mod table;

use lvs::scheduler::{
    HotCold, PeakEwma, PowerOfTwoChoices, SmoothWeightedRoundRobin, WeightedRandom,
};

use crate::simulation::{EQUAL, old_tenth, one_slow, simulate};

#[test]
fn random_queues_are_those_of_theory() {
    let random = simulate(WeightedRandom::new(), &EQUAL, 0.9, 200_000);
    let p99 = random.quantile(0.99);
    // M/M/1: ln 100 / (1 - 0.9) = 46.05.
    assert!((38.0..54.0).contains(&p99), "p99 {p99}");
}

#[test]
fn two_choices_are_those_of_the_paper() {
    let mean = simulate(PowerOfTwoChoices::new(), &EQUAL, 0.9, 500_000).mean();
    // Mitzenmacher 2001, 100 servers at 0.9; the limit of many servers is 2.6141.
    assert!((mean - 2.6454).abs() < 0.08, "mean {mean}");
}

#[test]
fn turns_halve_the_tail_of_chance() {
    let turns = simulate(SmoothWeightedRoundRobin::new(), &EQUAL, 0.9, 200_000);
    let p99 = turns.quantile(0.99);
    assert!((19.0..29.0).contains(&p99), "p99 {p99}");
}

#[test]
fn two_choices_keep_the_tail_below_ten_service_times() {
    let two = simulate(PowerOfTwoChoices::new(), &EQUAL, 0.9, 100_000);
    let (p50, p99) = (two.quantile(0.5), two.quantile(0.99));
    assert!(p99 <= 10.0 && p50 <= 2.5, "p50 {p50}, p99 {p99}");
}

#[test]
fn estimates_cost_equal_servers_next_to_nothing() {
    let peak = simulate(PeakEwma::new(), &EQUAL, 0.9, 100_000);
    let p99 = peak.quantile(0.99);
    assert!(p99 <= 10.5, "p99 {p99}");
}

#[test]
fn a_pool_of_probes_beats_two_choices() {
    let pool = simulate(HotCold::new(), &EQUAL, 0.9, 100_000);
    let (p50, p99) = (pool.quantile(0.5), pool.quantile(0.99));
    assert!(p99 <= 8.0 && p50 <= 1.8, "p50 {p50}, p99 {p99}");
}

#[test]
fn one_slow_server_spoils_nobodys_tail_but_that_of_chance() {
    let [two, peak, pool] = [
        simulate(PowerOfTwoChoices::new(), &one_slow(), 0.7, 100_000),
        simulate(PeakEwma::new(), &one_slow(), 0.7, 100_000),
        simulate(HotCold::new(), &one_slow(), 0.7, 100_000),
    ];
    let tails = [&two, &peak, &pool].map(|answers| answers.quantile(0.99));
    assert!(tails.iter().all(|&p99| p99 <= 8.0), "p99 {tails:?}");
    // Its capacity is a thousandth of the whole; by turns it would get a hundredth of the work.
    let shares = [&two, &peak, &pool].map(|answers| answers.share_of_first);
    assert!(shares[0] <= 0.002 && shares[1] <= 0.001 && shares[2] <= 0.001, "{shares:?}");
    assert!(peak.quantile(0.999) < two.quantile(0.999), "what estimates are for");
}

#[test]
fn estimates_help_where_a_part_of_the_fleet_is_old() {
    let [two, peak, pool] = [
        simulate(PowerOfTwoChoices::new(), &old_tenth(), 0.7, 100_000),
        simulate(PeakEwma::new(), &old_tenth(), 0.7, 100_000),
        simulate(HotCold::new(), &old_tenth(), 0.7, 100_000),
    ];
    let tails = [&two, &peak, &pool].map(|answers| answers.quantile(0.99));
    assert!(tails[0] <= 16.0 && tails[1] < tails[0] && tails[2] < tails[0], "p99 {tails:?}");
}
