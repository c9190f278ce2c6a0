//! The cost of a pick, with its lease made and dropped.
//!
//! ```text
//! cargo bench --bench pick                   # all benchmarks: some minutes
//! cargo bench --bench pick -- pick/wlc       # benchmarks that match
//! cargo bench --bench pick -- --test         # smoke
//! ```
//! - `pick`: by a worker, under a standing load, so that backends differ for least-loaded rules.
//! - `shared`: the same by `Balancer::pick`, which any thread can call.
//! - `churn`: each pick replaces a lease of the standing load, so that cached loads are always
//!   stale.
//! - `learned`: by rules that use latencies, with the time of the pick and an observation for each
//!   backend; alone, and with the end of the lease.
//! - `build`: compiling a picker, the cost of a change of the set.
//! - `contention`: one thread against two that pick from one balancer; the ratio is printed behind
//!   each pair.

#[path = "../tests/common/schedulers.rs"]
mod schedulers;

use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, measurement::WallTime};
use lvs::balancer::BalancerWorker;
use lvs::scheduler::Rng;
use lvs::{BackendSet, Balancer, Flow, Lease, Outcome, Scheduler, Spec};

use self::schedulers::{ALL, scheduler};

/// Measured under a changing load as well: rules that read it.
const CHURN: &[&str] = &["rr", "lc", "wlc", "sed", "nq", "p2c", "bounded(maglev, factor=1.1)"];

/// Measured with latency observations as well.
const LEARNED: &[&str] = &["peak_ewma", "hot_cold"];

/// Measured without a worker as well.
const SHARED: &[&str] = &["rr", "wlc", "p2c", "maglev"];

/// The pickers that are built, and the number of backends.
const BUILD: &[(&str, u32)] = &[
    ("rr", 1000),
    ("wlc", 1000),
    ("swrr", 1000),
    ("p2c", 1000),
    ("mh", 1000),
    ("ring", 1000),
    ("rendezvous(table)", 1000),
    ("maglev", 10),
    ("maglev", 1000),
];

/// Measured with two threads at 100 and 1000 backends; those with a cursor forked as well.
const CONTENTION: &[(&str, Cursor)] = &[
    ("random", Cursor::Shared),
    ("random", Cursor::Lanes),
    ("p2c", Cursor::Shared),
    ("p2c", Cursor::Lanes),
    ("sh", Cursor::Lanes),
    ("mh", Cursor::Lanes),
    ("ring", Cursor::Lanes),
    ("rendezvous(table)", Cursor::Lanes),
    ("maglev", Cursor::Shared),
    ("maglev", Cursor::Lanes),
    ("wlc", Cursor::Shared),
    ("rr", Cursor::Shared),
    ("rr", Cursor::Forked),
    ("rr", Cursor::Lanes),
    ("rr", Cursor::ForkedLanes),
    ("wrr", Cursor::Shared),
    ("wrr", Cursor::ForkedLanes),
    ("swrr", Cursor::Shared),
    ("swrr", Cursor::ForkedLanes),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cursor {
    /// Both threads pick from the same balancer.
    Shared,
    /// Each thread has a fork of its own; the backends' counters are shared.
    Forked,
    /// Both threads pick from the same balancer; each has a counter lane of its own.
    Lanes,
    /// Each thread has a fork and a counter lane of its own.
    ForkedLanes,
}

impl Cursor {
    fn lanes(self) -> usize {
        match self {
            Self::Shared | Self::Forked => 0,
            Self::Lanes | Self::ForkedLanes => 2,
        }
    }
}

const SIZES: [u32; 3] = [10, 100, 1000];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(700))
        .configure_from_args();
    pick(&mut criterion);
    shared(&mut criterion);
    churn(&mut criterion);
    learned(&mut criterion);
    build(&mut criterion);
    contention(&mut criterion);
    criterion.final_summary();
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (&name, size) in ALL.iter().flat_map(|name| SIZES.map(|size| (name, size))) {
        let mut world = None;
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let world = world.get_or_insert_with(|| World::new(name, size));
            let World { worker, flows, .. } = world;
            bencher.iter(|| worker.pick(&flows.next()).expect("a usable backend"));
        });
    }
}

fn shared(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shared");
    for (&name, size) in SHARED.iter().flat_map(|name| SIZES.map(|size| (name, size))) {
        let mut world = None;
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let world = world.get_or_insert_with(|| World::new(name, size));
            bencher.iter(|| {
                let lease = world.balancer.pick(&world.flows.next());
                drop(black_box(lease.expect("a usable backend")));
            });
        });
    }
}

fn churn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("churn");
    for (&name, size) in CHURN.iter().flat_map(|name| SIZES.map(|size| (name, size))) {
        let mut world = None;
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let world = world.get_or_insert_with(|| World::new(name, size));
            bencher.iter(|| {
                let lease = world.worker.pick(&world.flows.next()).expect("a usable backend");
                let slot = world.rng.below(world.held.len() as u64) as usize;
                world.held[slot] = lease;
            });
        });
    }
}

fn learned(criterion: &mut Criterion) {
    const LATENCY: Duration = Duration::from_millis(1);
    let mut group = criterion.benchmark_group("learned");
    for (&name, size) in LEARNED.iter().flat_map(|name| SIZES.map(|size| (name, size))) {
        let mut world = None;
        let mut observed = || {
            let (world, start) = (World::new(name, size), now());
            for lease in &world.held {
                lease.observe_latency(LATENCY, start);
            }
            (world, start + Duration::from_secs(1))
        };
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let (World { worker, flows, .. }, at) = world.get_or_insert_with(&mut observed);
            bencher.iter(|| {
                *at += Duration::from_micros(1);
                worker.pick(&flows.next().time(*at)).expect("a usable backend")
            });
        });
        group.bench_function(BenchmarkId::new(format!("{name} completed"), size), |bencher| {
            let (World { worker, flows, .. }, at) = world.get_or_insert_with(&mut observed);
            bencher.iter(|| {
                *at += Duration::from_micros(1);
                let lease = worker.pick(&flows.next().time(*at)).expect("a usable backend");
                lease.complete_with_latency(Outcome::Ok, LATENCY, *at);
            });
        });
    }
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for &(name, size) in BUILD {
        let mut world = None;
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let world = world.get_or_insert_with(|| World::new(name, size));
            let snapshot = world.balancer.snapshot();
            let rule = scheduler(name);
            bencher.iter(|| {
                rule.compile(black_box(snapshot.members()), None).expect("the rule takes this set")
            });
        });
    }
}

fn contention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("contention");
    for (&(name, cursor), size) in
        CONTENTION.iter().flat_map(|case| [100, 1000].map(|size| (case, size)))
    {
        let label = match cursor {
            Cursor::Shared => name.to_owned(),
            Cursor::Forked => format!("{name} forked"),
            Cursor::Lanes => format!("{name} on lanes"),
            Cursor::ForkedLanes => format!("{name} forked, on lanes"),
        };
        let alone = threads(&mut group, &label, name, cursor, size, 1);
        let two = threads(&mut group, &label, name, cursor, size, 2);
        if let (Some(alone), Some(two)) = (alone, two) {
            println!(
                "{label}, {size} backends: alone {alone:.1} ns, two threads {two:.1} ns each, \
                 ratio {:.2}\n",
                two / alone
            );
        }
    }
}

/// Returns the nanoseconds of a pick on each of `threads` threads; `None` without a measurement.
///
/// The lower quartile of all samples, because other work of the machine only adds time.
fn threads(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    name: &str,
    cursor: Cursor,
    size: u32,
    threads: usize,
) -> Option<f64> {
    // Fewer picks end before the other thread runs at full speed.
    const MIN_PICKS: u64 = 50_000;
    let samples = RefCell::new(Vec::new());
    let mut world = None;
    group.bench_function(format!("{label}/{size}/{threads}"), |bencher| {
        let world = world.get_or_insert_with(|| World::with_lanes(name, size, cursor.lanes()));
        bencher.iter_custom(|picks| {
            let time = together(world, cursor, threads, picks);
            if picks >= MIN_PICKS {
                samples.borrow_mut().push(time.as_nanos() as f64 / picks as f64);
            }
            time
        });
    });
    let mut samples = samples.into_inner();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 4).copied()
}

/// Returns the mean time of the threads for `picks` picks each.
fn together(world: &World, cursor: Cursor, threads: usize, picks: u64) -> Duration {
    let start = Barrier::new(threads);
    let times: Vec<Duration> = thread::scope(|scope| {
        let spawn = |i: usize| {
            let balancer = match cursor {
                Cursor::Shared | Cursor::Lanes => world.balancer.clone(),
                Cursor::Forked | Cursor::ForkedLanes => {
                    world.balancer.fork().expect("a rule that takes this set")
                }
            };
            let mut worker = balancer.worker(Rng::with_seed(i as u64));
            let mut flows = Flows::new(i as u64);
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let begin = now();
                for _ in 0..picks {
                    let lease = worker.pick(&flows.next());
                    drop(black_box(lease.expect("a usable backend")));
                }
                now().saturating_duration_since(begin)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    times.iter().sum::<Duration>() / threads as u32
}

/// A balancer under load.
struct World {
    balancer: Balancer<SocketAddr>,
    worker: BalancerWorker<SocketAddr>,
    flows: Flows,
    rng: Rng,
    /// A lease on each backend and two more on random backends: no backend is idle, and neighbours
    /// have different loads.
    held: Vec<Lease<SocketAddr>>,
}

impl World {
    fn new(name: &str, size: u32) -> Self {
        Self::with_lanes(name, size, 0)
    }

    fn with_lanes(name: &str, size: u32, lanes: usize) -> Self {
        let set = BackendSet::with_counter_lanes(lanes);
        set.edit(|edit| {
            for i in 0..size {
                let address = SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 80));
                // Four weights, all above the load: under `ovf` they are numbers of connections.
                edit.insert(Spec::from(address).weight(16 * (1 + i % 4)))?;
            }
            Ok(())
        })
        .expect("a sound set");
        let balancer = Balancer::new(&set, scheduler(name)).expect("every rule takes this set");
        let snapshot = balancer.snapshot();
        let ids = snapshot.backends().iter().map(|backend| backend.id());
        let mut rng = Rng::with_seed(u64::from(size));
        let extra: Vec<_> = (0..2 * size)
            .map(|_| snapshot.backends()[rng.below(u64::from(size)) as usize].id())
            .collect();
        let held = ids.chain(extra).filter_map(|id| balancer.lease_by_id(id)).collect();
        let worker = balancer.worker(Rng::with_seed(1));
        Self { balancer, worker, flows: Flows::new(u64::from(size)), rng, held }
    }
}

/// Flows of random clients, each made on the stack for its pick, as in use.
struct Flows(Rng);

impl Flows {
    fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    fn next(&mut self) -> Flow {
        let [a, b, c, d, e, f, ..] = self.0.next_u64().to_le_bytes();
        let client = SocketAddr::from(([a, b, c, d], u16::from_le_bytes([e, f])));
        Flow::from(client).destination(client)
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is a shell: it reads the clock")]
fn now() -> Instant {
    Instant::now()
}
