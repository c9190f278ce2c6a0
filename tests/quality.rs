//! How evenly the random rules spread work, measured in a small simulation: servers with a queue
//! each, arrivals and service times by chance, time as a variable. Every run repeats itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use lvs::scheduler::{
    HotCold, PeakEwma, PowerOfTwo, Random, Rng, Scheduler, SmoothWeightedRoundRobin,
};
use lvs::{BackendSet, Balancer, Flow, Lease, Outcome, Spec};

/// One mean service time of a server of ordinary speed.
const SERVICE: Duration = Duration::from_millis(10);

/// A service time that is exponentially distributed with mean 1, and so is what lies between
/// arrivals.
fn exponential(rng: &mut Rng) -> f64 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    -(1.0 - uniform).ln()
}

struct Answers {
    /// In mean service times, ascending.
    times: Vec<f64>,
    /// The part that server 0 got.
    share_of_first: f64,
}

impl Answers {
    fn quantile(&self, part: f64) -> f64 {
        self.times[((self.times.len() - 1) as f64 * part) as usize]
    }
}

/// Sends `requests` to servers that take `slowness` times as long as the ordinary, at `load` of what
/// they can do together. The first fifth is not measured.
fn simulate(
    rule: impl Scheduler + 'static,
    slowness: &[f64],
    load: f64,
    requests: usize,
) -> Answers {
    let set = BackendSet::new();
    set.edit(|edit| {
        for (server, _) in slowness.iter().enumerate() {
            edit.insert(Spec::new(server.to_string().as_str(), server))?;
        }
        Ok(())
    })
    .expect("sound specs");
    let balancer = Balancer::new(&set, rule).expect("a rule that takes any set");
    let mut rng = Rng::with_seed(0x10ad);
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let start = Instant::now();
    let at = |time: f64| start + SERVICE.mul_f64(time);

    let rate = load * slowness.iter().map(|slow| 1.0 / slow).sum::<f64>();
    let mut free_at = vec![0.0f64; slowness.len()];
    let mut pending: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut leases: Vec<Option<(Lease<usize>, f64)>> = Vec::new();
    let (mut times, mut first, mut now) = (Vec::new(), 0, 0.0);
    for request in 0..requests {
        now += exponential(&mut rng) / rate;
        while let Some(&Reverse((end, done))) = pending.peek() {
            let end = f64::from_bits(end);
            if end > now {
                break;
            }
            pending.pop();
            let (lease, since) = leases[done].take().expect("each ends once");
            lease.complete_after(Outcome::Ok, SERVICE.mul_f64(end - since), at(end));
        }
        let lease = balancer.pick_with(&Flow::new().at(at(now)), &mut rng).expect("no limits");
        let server = *lease.target();
        let end = free_at[server].max(now) + exponential(&mut rng) * slowness[server];
        free_at[server] = end;
        // The bits of positive numbers are ordered as the numbers are.
        pending.push(Reverse((end.to_bits(), request)));
        leases.push(Some((lease, now)));
        if request >= requests / 5 {
            times.push(end - now);
            first += usize::from(server == 0);
        }
    }
    times.sort_by(f64::total_cmp);
    Answers { share_of_first: f64::from(first as u32) / times.len() as f64, times }
}

const EQUAL: [f64; 100] = [1.0; 100];

/// One server ten times slower than the others.
fn one_slow() -> [f64; 100] {
    let mut slowness = EQUAL;
    slowness[0] = 10.0;
    slowness
}

/// A tenth of the servers four times slower than the others.
fn old_tenth() -> [f64; 100] {
    let mut slowness = EQUAL;
    slowness[..10].fill(4.0);
    slowness
}

#[test]
fn random_queues_are_those_of_theory() {
    let random = simulate(Random::new(), &EQUAL, 0.9, 200_000);
    let p99 = random.quantile(0.99);
    // M/M/1: ln 100 / (1 - 0.9) = 46.05.
    assert!((38.0..54.0).contains(&p99), "p99 {p99}");
}

#[test]
fn turns_halve_the_tail_of_chance() {
    let turns = simulate(SmoothWeightedRoundRobin::new(), &EQUAL, 0.9, 200_000);
    let p99 = turns.quantile(0.99);
    assert!((19.0..29.0).contains(&p99), "p99 {p99}");
}

#[test]
fn two_choices_keep_the_tail_below_ten_service_times() {
    let two = simulate(PowerOfTwo::new(), &EQUAL, 0.9, 100_000);
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
        simulate(PowerOfTwo::new(), &one_slow(), 0.7, 100_000),
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
        simulate(PowerOfTwo::new(), &old_tenth(), 0.7, 100_000),
        simulate(PeakEwma::new(), &old_tenth(), 0.7, 100_000),
        simulate(HotCold::new(), &old_tenth(), 0.7, 100_000),
    ];
    let tails = [&two, &peak, &pool].map(|answers| answers.quantile(0.99));
    assert!(tails[0] <= 16.0 && tails[1] < tails[0] && tails[2] < tails[0], "p99 {tails:?}");
}
