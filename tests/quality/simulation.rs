//! A simulation of servers with a queue each, with random arrivals and service times. Time is a
//! variable, and every run gives the same result.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use lvs::scheduler::{Rng, Scheduler};
use lvs::{BackendSet, Balancer, Flow, Lease, Outcome, Spec};

/// The mean service time of a server of normal speed.
const SERVICE: Duration = Duration::from_millis(10);

/// Returns an exponentially distributed number of mean 1, for service times and times between
/// arrivals.
fn exponential(rng: &mut Rng) -> f64 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    -(1.0 - uniform).ln()
}

/// The response times of a run, in mean service times.
pub(crate) struct Responses {
    /// From arrival to response, ascending.
    times: Vec<f64>,
    /// From arrival to the beginning of service, ascending.
    waits: Vec<f64>,
    /// The part of the requests that server 0 got.
    pub(crate) share_of_first: f64,
    /// Whether the busiest server got more than its capacity and its queue grew without end. The
    /// times then depend on the length of the run.
    pub(crate) grows: bool,
}

impl Responses {
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        at(&self.times, part)
    }

    pub(crate) fn mean(&self) -> f64 {
        self.times.iter().sum::<f64>() / self.times.len() as f64
    }

    pub(crate) fn wait(&self, part: f64) -> f64 {
        at(&self.waits, part)
    }
}

fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// Returns a request of a random client for a random destination.
fn random_flow(rng: &mut Rng) -> Flow {
    let mut address = |port| {
        let [a, b, c, _] = (rng.next_u64() as u32).to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(10, a, b, c), port))
    };
    Flow::from(address(50_000)).destination(address(80))
}

/// Sends `requests` to servers that take `slowness` times the normal service time, at `load` of
/// their total capacity. The first fifth is not measured.
pub(crate) fn simulate(
    rule: impl Scheduler + 'static,
    slowness: &[f64],
    load: f64,
    requests: usize,
) -> Responses {
    let set = BackendSet::new();
    set.edit(|edit| {
        for (server, _) in slowness.iter().enumerate() {
            edit.insert(Spec::new(server.to_string().as_str(), server))?;
        }
        Ok(())
    })
    .expect("sound specs");
    let balancer = Balancer::new(&set, rule).expect("a rule that takes any set");
    let (mut rng, mut keys) = (Rng::with_seed(0x10ad), Rng::with_seed(0x6b65));
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let start = Instant::now();
    let when = |time: f64| start + SERVICE.mul_f64(time);

    let rate = load * slowness.iter().map(|slow| 1.0 / slow).sum::<f64>();
    let mut free_at = vec![0.0f64; slowness.len()];
    let mut pending: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut leases: Vec<Option<(Lease<usize>, f64)>> = Vec::new();
    let (mut times, mut waits, mut now) = (Vec::new(), Vec::new(), 0.0);
    let mut waits_by_server = vec![Vec::new(); slowness.len()];
    for request in 0..requests {
        now += exponential(&mut rng) / rate;
        while let Some(&Reverse((end, done))) = pending.peek() {
            let end = f64::from_bits(end);
            if end > now {
                break;
            }
            pending.pop();
            let (lease, since) = leases[done].take().expect("each request ends once");
            lease.complete_with_latency(Outcome::Ok, SERVICE.mul_f64(end - since), when(end));
        }
        let lease = balancer
            .pick_with_rng(&random_flow(&mut keys).time(when(now)), &mut rng)
            .expect("no limits");
        let server = *lease.target();
        let begin = free_at[server].max(now);
        let end = begin + exponential(&mut rng) * slowness[server];
        free_at[server] = end;
        // The bits of positive numbers are ordered as the numbers are.
        pending.push(Reverse((end.to_bits(), request)));
        leases.push(Some((lease, now)));
        if request >= requests / 5 {
            times.push(end - now);
            waits.push(begin - now);
            waits_by_server[server].push(begin - now);
        }
    }
    times.sort_by(f64::total_cmp);
    waits.sort_by(f64::total_cmp);
    let share = |waits: &Vec<f64>| waits.len() as f64 / times.len() as f64;
    let work = |server: usize| share(&waits_by_server[server]) * rate * slowness[server];
    let busiest = (0..slowness.len()).max_by(|&a, &b| work(a).total_cmp(&work(b)));
    let grows =
        busiest.is_some_and(|server| work(server) > 1.02 && is_growing(&waits_by_server[server]));
    Responses { share_of_first: share(&waits_by_server[0]), grows, times, waits }
}

/// Returns whether the last fifth of these waits, in order, is long and far above the first fifth.
fn is_growing(waits: &[f64]) -> bool {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let fifth = waits.len() / 5;
    let (first, last) = (mean(&waits[..fifth]), mean(&waits[4 * fifth..]));
    last > 5.0 && last > 2.0 * first
}

pub(crate) const EQUAL: [f64; 100] = [1.0; 100];

/// Returns a set in which one server is ten times slower than the others.
pub(crate) fn one_slow() -> [f64; 100] {
    let mut slowness = EQUAL;
    slowness[0] = 10.0;
    slowness
}

/// Returns a set in which a tenth of the servers is four times slower than the others.
pub(crate) fn old_tenth() -> [f64; 100] {
    let mut slowness = EQUAL;
    slowness[..10].fill(4.0);
    slowness
}
