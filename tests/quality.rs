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
    let mut pending = BinaryHeap::new();
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

#[test]
fn explore() {
    for load in [0.7, 0.9] {
        let show = |name: &str, a: Answers| {
            println!(
                "{load} {name}: p50 {:.2} p99 {:.2} p99.9 {:.2} first {:.4}",
                a.quantile(0.5),
                a.quantile(0.99),
                a.quantile(0.999),
                a.share_of_first
            )
        };
        for (kind, slow) in [("equal", EQUAL), ("one slow", one_slow())] {
            println!("{kind}");
            let n = 500_000;
            if kind == "equal" {
                show("random", simulate(Random::new(), &slow, load, n));
                show("swrr", simulate(SmoothWeightedRoundRobin::new(), &slow, load, n));
            }
            show("p2c", simulate(PowerOfTwo::new(), &slow, load, n));
            show("peak", simulate(PeakEwma::new(), &slow, load, n));
            show("peak .1s", simulate(PeakEwma::new().with_decay(SERVICE * 10), &slow, load, n));
            show("hot", simulate(HotCold::new(), &slow, load, n));
            show("hot reuse1", simulate(HotCold::new().with_reuse(1), &slow, load, n));
            show("hot q.6", simulate(HotCold::new().with_quantile(0.6), &slow, load, n));
            show("hot q0", simulate(HotCold::new().with_quantile(0.0), &slow, load, n));
        }
    }
}
