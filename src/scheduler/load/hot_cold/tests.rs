use std::time::Instant;

use super::*;
use crate::backend::Member;
use crate::scheduler::testing::{assert_near, balancer, id, percentages, position, sequence};
use crate::scheduler::{Flow, Rng};
use crate::{Balancer, Limits, Outcome, PickError};

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    Instant::now()
}

/// Reports fixed requests in flight and milliseconds by the member's name.
#[derive(Debug)]
struct FixedProbe(&'static [(u32, u64)]);

impl LoadProbe for FixedProbe {
    fn probe(&self, member: &Member, _now: Option<Instant>) -> LoadProbeResult {
        let (in_flight, millis) = self.0[member.id().as_str().parse::<usize>().expect("a name")];
        LoadProbeResult::new(in_flight, Duration::from_millis(millis))
    }
}

fn fixed(answers: &'static [(u32, u64)], weights: &[u32]) -> Balancer<()> {
    balancer(HotCold::new().probe(FixedProbe(answers)).probes(8).expect("in range"), weights)
}

#[test]
fn the_quickest_cold_member_is_selected_though_others_are_idler() {
    let balancer = fixed(&[(1, 30), (4, 10), (0, 40), (9, 1)], &[1; 4]);
    assert_eq!(sequence(&balancer, 1), [1], "member 3 is quicker, and hot");
}

#[test]
fn a_quantile_of_one_is_latency_alone_and_of_zero_nearly_load_alone() {
    static ANSWERS: [(u32, u64); 4] = [(1, 30), (4, 10), (0, 40), (9, 1)];
    let rule = || HotCold::new().probe(FixedProbe(&ANSWERS)).probes(8).expect("in range");
    assert_eq!(sequence(&balancer(rule().quantile(1.0).expect("in range"), &[1; 4]), 1), [3]);
    assert_eq!(sequence(&balancer(rule().quantile(0.0).expect("in range"), &[1; 4]), 1), [2]);
    assert!(rule().quantile(f64::NAN).is_err());
}

#[test]
fn requests_in_flight_count_per_weight() {
    static ANSWERS: [(u32, u64); 2] = [(6, 10), (5, 20)];
    let rule = || HotCold::new().probe(FixedProbe(&ANSWERS)).quantile(0.0).expect("in range");
    assert_eq!(sequence(&balancer(rule(), &[1, 1]), 1), [1]);
    assert_eq!(sequence(&balancer(rule(), &[2, 1]), 1), [0]);
}

#[test]
fn picks_count_in_the_pool_before_any_probe_sees_them() {
    // Probed once, then reused: the second pick must know of the first.
    let rule =
        HotCold::new().probe(FixedProbe(&[(1, 10), (1, 11)])).quantile(0.0).expect("in range");
    let picks = sequence(&balancer(rule.reuse(15).expect("in range"), &[1, 1]), 2);
    assert_eq!(picks[0], 0);
    let pool = ProbePool::new(ProbePoolConfig {
        hot_quantile_permille: 0,
        uses_per_result: 15,
        ..ProbePoolConfig::default()
    });
    let world = balancer(HotCold::new(), &[1, 1]);
    let snapshot = world.snapshot();
    let answers = [(0, 10), (1, 11)].map(|(position, millis)| {
        PackedProbeResult::new(
            position,
            1,
            LoadProbeResult::new(1, Duration::from_millis(millis)),
            0,
        )
    });
    answers.into_iter().for_each(|answer| pool.add(answer));
    let (flow, mut rng) = (Flow::new(), Rng::with_seed(1));
    let cx = PickContext::new(snapshot.members(), &flow, &mut rng);
    let chosen: Vec<_> = (0..4).map(|_| pool.choose(&cx, 0)).collect();
    assert_eq!(chosen, [Some(0), Some(1), Some(0), Some(1)]);
}

#[test]
fn a_result_is_used_as_often_as_configured() {
    let pool = ProbePool::new(ProbePoolConfig { uses_per_result: 3, ..ProbePoolConfig::default() });
    let world = balancer(HotCold::new(), &[1]);
    let snapshot = world.snapshot();
    pool.add(PackedProbeResult::new(0, 1, LoadProbeResult::new(1, Duration::from_millis(1)), 0));
    let (flow, mut rng) = (Flow::new(), Rng::with_seed(1));
    let cx = PickContext::new(snapshot.members(), &flow, &mut rng);
    let chosen: Vec<_> = (0..4).map(|_| pool.choose(&cx, 0)).collect();
    assert_eq!(chosen, [Some(0), Some(0), Some(0), None]);
}

#[test]
fn an_idle_set_of_unknown_members_is_shared_by_weight() {
    let got = percentages(
        &balancer(
            HotCold::new().probes(1).and_then(|rule| rule.pool(1)).expect("in range"),
            &[2, 0, 1],
        ),
        50_000,
    );
    assert_near(&got, &[66.7, 0.0, 33.3], 1.0);
}

#[test]
fn held_connections_settle_in_proportion_to_weight() {
    let balancer = balancer(HotCold::new().quantile(0.0).expect("in range"), &[4, 2, 1, 1]);
    let mut rng = Rng::with_seed(5);
    let flow = Flow::new();
    let held: Vec<_> =
        (0..800).map(|_| balancer.pick_with_rng(&flow, &mut rng).expect("a pick")).collect();
    let mut counts = [0; 4];
    held.iter().for_each(|lease| counts[position(lease)] += 1);
    for (count, want) in counts.into_iter().zip([400, 200, 100, 100]) {
        assert!(i32::abs_diff(count, want) <= 40, "{counts:?}");
    }
}

#[test]
fn a_failing_member_gets_few_picks_and_recovers() {
    let balancer = balancer(HotCold::new(), &[1; 10]);
    let (mut now, mut rng) = (start(), Rng::with_seed(8));
    let mut drive = |picks: u32, mended: bool| {
        let mut hits = 0;
        for _ in 0..picks {
            now += Duration::from_millis(10);
            let lease = balancer.pick_with_rng(&Flow::new().time(now), &mut rng).expect("a pick");
            if position(&lease) == 4 {
                hits += 1;
                if !mended {
                    lease.complete_with_latency(Outcome::ConnectError, Duration::ZERO, now);
                    continue;
                }
            }
            lease.complete_with_latency(Outcome::Ok, Duration::from_millis(10), now);
        }
        hits
    };
    let broken = drive(6000, false);
    assert!((1..=30).contains(&broken), "{broken} of 6000");
    let mended = drive(6000, true);
    assert!(mended >= 100, "{mended} of 6000");
}

#[test]
fn the_same_seed_repeats_the_run() {
    let run = || sequence(&balancer(HotCold::new(), &[3, 1, 4, 1, 5]), 200);
    assert_eq!(run(), run());
}

#[test]
fn members_at_limits_tried_or_of_weight_zero_are_not_selected() {
    let balancer = balancer(HotCold::new(), &[1, 1, 1, 0]);
    balancer.backend_set().set_limits(&id(0), Limits::new(1)).expect("a limit");
    let _held = balancer.lease_by_id(&id(0)).expect("a free place");
    assert!(sequence(&balancer, 100).iter().all(|&i| i == 1 || i == 2));
    let snapshot = balancer.snapshot();
    let flow = Flow::new().excluding(&snapshot.backends()[1]);
    assert_eq!(balancer.pick(&flow).map(|lease| position(&lease)), Ok(2));
    let flow = flow.excluding(&snapshot.backends()[2]);
    assert_eq!(balancer.pick(&flow).err(), Some(PickError::AllAtLimit));
}

#[test]
fn a_single_member_gets_every_pick() {
    assert_eq!(percentages(&balancer(HotCold::new(), &[0, 1]), 100), [0.0, 100.0]);
}
