//! Response times under the schedulers, measured in a simulation.
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
fn random_response_times_are_those_of_theory() {
    let random = simulate(WeightedRandom::new(), &EQUAL, 0.9, 200_000);
    let p99 = random.quantile(0.99);
    // M/M/1: ln 100 / (1 - 0.9) = 46.05.
    assert!((38.0..54.0).contains(&p99), "p99 {p99}");
}

#[test]
fn two_choices_have_the_mean_of_the_paper() {
    let mean = simulate(PowerOfTwoChoices::new(), &EQUAL, 0.9, 500_000).mean();
    // Mitzenmacher 2001, 100 servers at 0.9; the limit of many servers is 2.6141.
    assert!((mean - 2.6454).abs() < 0.08, "mean {mean}");
}

#[test]
fn round_robin_halves_the_tail_of_random() {
    let round_robin = simulate(SmoothWeightedRoundRobin::new(), &EQUAL, 0.9, 200_000);
    let p99 = round_robin.quantile(0.99);
    assert!((19.0..29.0).contains(&p99), "p99 {p99}");
}

#[test]
fn two_choices_keep_the_tail_below_ten_service_times() {
    let two = simulate(PowerOfTwoChoices::new(), &EQUAL, 0.9, 100_000);
    let (p50, p99) = (two.quantile(0.5), two.quantile(0.99));
    assert!(p99 <= 10.0 && p50 <= 2.5, "p50 {p50}, p99 {p99}");
}

#[test]
fn peak_ewma_keeps_the_tail_of_equal_servers() {
    let peak = simulate(PeakEwma::new(), &EQUAL, 0.9, 100_000);
    let p99 = peak.quantile(0.99);
    assert!(p99 <= 10.5, "p99 {p99}");
}

#[test]
fn hot_cold_has_a_shorter_tail_than_two_choices() {
    let pool = simulate(HotCold::new(), &EQUAL, 0.9, 100_000);
    let (p50, p99) = (pool.quantile(0.5), pool.quantile(0.99));
    assert!(p99 <= 8.0 && p50 <= 1.8, "p50 {p50}, p99 {p99}");
}

#[test]
fn one_slow_server_does_not_lengthen_the_tail() {
    let [two, peak, pool] = [
        simulate(PowerOfTwoChoices::new(), &one_slow(), 0.7, 100_000),
        simulate(PeakEwma::new(), &one_slow(), 0.7, 100_000),
        simulate(HotCold::new(), &one_slow(), 0.7, 100_000),
    ];
    let tails = [&two, &peak, &pool].map(|responses| responses.quantile(0.99));
    assert!(tails.iter().all(|&p99| p99 <= 8.0), "p99 {tails:?}");
    // Its capacity is a thousandth of the whole; with round robin it would get a hundredth of the
    // work.
    let shares = [&two, &peak, &pool].map(|responses| responses.share_of_first);
    assert!(shares[0] <= 0.002 && shares[1] <= 0.001 && shares[2] <= 0.001, "{shares:?}");
    assert!(peak.quantile(0.999) < two.quantile(0.999), "peak_ewma avoids the slow server");
}

#[test]
fn latency_rules_have_a_shorter_tail_with_a_tenth_of_slow_servers() {
    let [two, peak, pool] = [
        simulate(PowerOfTwoChoices::new(), &old_tenth(), 0.7, 100_000),
        simulate(PeakEwma::new(), &old_tenth(), 0.7, 100_000),
        simulate(HotCold::new(), &old_tenth(), 0.7, 100_000),
    ];
    let tails = [&two, &peak, &pool].map(|responses| responses.quantile(0.99));
    assert!(tails[0] <= 16.0 && tails[1] < tails[0] && tails[2] < tails[0], "p99 {tails:?}");
}
