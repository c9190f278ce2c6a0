//! Picks of `lvs` beside those of tower, pingora-load-balancing and hashring, in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml [-- --quick]
//! ```
//! Prints rows `subject,backends,ns`, then the ratios. Rounds of all subjects alternate, so that
//! whatever else the machine does meets all of them; each figure is the median of its rounds.
//!
//! What one step is differs, and the rows say it as it is:
//! - `lvs`: a pick with its lease, made and dropped: the count of the backend goes up and down.
//! - `tower`: `poll_ready`, `call` and the answer of a service that is always ready, with
//!   `PendingRequests` as load: the same bookkeeping.
//! - `lvs Balance`, `lvs ReadyFirst`: the same service by these.
//! - `by two tasks`, which share it: by a clone each, or through tower's `Buffer`. On two threads, wall
//!   time for a request: half of the figure for one thread would be perfect.
//! - `pingora`: `select`, which clones the backend and counts nothing.
//! - `hashring`: `get`, which hashes the key and searches; no health, no count.

mod ours;
mod services;
mod theirs;

#[path = "../../../tests/common/schedulers.rs"]
mod schedulers;

use std::process::Command;
use std::time::{Duration, Instant};

/// What is measured: does `steps` steps at each call.
type Step = Box<dyn FnMut(u64)>;

struct Subject {
    name: String,
    backends: usize,
    step: Step,
    /// How many steps take about one slice of time.
    steps: u64,
    rounds: Vec<f64>,
}

/// Ours, theirs: what is compared where both rows are there. Extend by adding a line.
const PAIRS: &[(&str, &str)] = &[
    ("lvs rr", "pingora RoundRobin"),
    ("lvs wrr", "pingora RoundRobin"),
    ("lvs swrr", "pingora RoundRobin"),
    ("lvs random", "pingora Random"),
    ("lvs p2c", "tower p2c"),
    ("lvs wlc", "tower p2c"),
    ("lvs Balance p2c", "tower p2c"),
    ("lvs ReadyFirst p2c", "tower p2c"),
    ("lvs Balance maglev", "tower p2c"),
    ("lvs Balance peak_ewma", "tower peak_ewma"),
    ("lvs Balance p2c by two tasks of one thread", "tower Buffer p2c by two tasks of one thread"),
    ("lvs Balance p2c by two tasks on two threads", "tower Buffer p2c by two tasks on two threads"),
    ("lvs Balance p2c, a set each, by two threads", "lvs Balance p2c"),
    ("lvs Balance p2c by two threads", "lvs Balance p2c, a set each, by two threads"),
    ("lvs Balance p2c with lanes by two threads", "lvs Balance p2c, a set each, by two threads"),
    ("lvs sh", "pingora FNVHash"),
    ("lvs maglev", "pingora FNVHash"),
    ("lvs maglev", "pingora Consistent"),
    ("lvs ring", "pingora Consistent"),
    ("lvs ring", "hashring 1 vnode"),
    ("lvs ring", "hashring 160 vnodes"),
    ("lvs rendezvous", "hashring 160 vnodes"),
];

const SIZES: [usize; 3] = [10, 100, 1000];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, slice) =
        if quick { (5, Duration::from_millis(2)) } else { (41, Duration::from_millis(10)) };
    println!("# {}", machine());

    let mut subjects: Vec<Subject> = SIZES
        .into_iter()
        .flat_map(|n| {
            let picks = ours::subjects(n).into_iter().chain(theirs::subjects(n));
            picks.chain(services::subjects(n))
        })
        .collect();
    for subject in &mut subjects {
        subject.calibrate(slice);
    }
    for _ in 0..rounds {
        for subject in &mut subjects {
            let nanos = time(&mut subject.step, subject.steps).as_nanos() as f64;
            subject.rounds.push(nanos / subject.steps as f64);
        }
    }

    println!("subject,backends,ns");
    for subject in &subjects {
        println!("{},{},{:.1}", quoted(&subject.name), subject.backends, subject.median());
    }
    println!("\nours : theirs,backends,ratio of times (below 1: ours is faster)");
    for (ours, theirs) in PAIRS {
        for n in SIZES {
            let median = |name: &str| {
                let is = |s: &&Subject| schedulers::is(&s.name, name) && s.backends == n;
                subjects.iter().find(is).map(Subject::median)
            };
            if let (Some(a), Some(b)) = (median(ours), median(theirs)) {
                println!("{},{n},{:.2}", quoted(&format!("{ours} : {theirs}")), a / b);
            }
        }
    }
}

impl Subject {
    fn new(name: impl Into<String>, backends: usize, step: impl FnMut(u64) + 'static) -> Self {
        let (name, step) = (name.into(), Box::new(step));
        Self { name, backends, step, steps: 1, rounds: Vec::new() }
    }

    /// Warms up, and finds how many steps fill a slice.
    fn calibrate(&mut self, slice: Duration) {
        while self.steps < 1 << 32 {
            let taken = time(&mut self.step, self.steps);
            if taken >= slice / 2 {
                let nanos = (taken.as_nanos() as u64 / self.steps).max(1);
                self.steps = (slice.as_nanos() as u64 / nanos).max(1);
                return;
            }
            self.steps *= 2;
        }
    }

    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench is a shell: it reads the clock")]
fn time(step: &mut Step, steps: u64) -> Duration {
    let start = Instant::now();
    step(steps);
    start.elapsed()
}

/// The processor, its cores and the compiler: what a figure means nothing without.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    format!("{model}, {cores} cores, {}", rustc.unwrap_or_else(|_| "unknown rustc".to_owned()))
}

/// The names of `n` backends; no two alike.
fn addresses(n: usize) -> impl Iterator<Item = std::net::SocketAddr> {
    (0..n).map(|i| ([10, 0, (i >> 8) as u8, i as u8], 80).into())
}

/// The keys that everybody is asked for: the same ones, spread over all values, and none twice, so
/// that no table is nearer to the processor than it would be in use.
fn keys() -> impl FnMut() -> u64 {
    let mut x = 0u64;
    move || {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (x ^ (x >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}

/// A name as a field of a row: some have commas.
fn quoted(name: &str) -> String {
    if name.contains(',') { format!("\"{name}\"") } else { name.to_owned() }
}
