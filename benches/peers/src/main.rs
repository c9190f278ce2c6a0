//! Compares picks of `lvs` with those of tower, pingora-load-balancing and hashring, in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml [-- --quick]
//! ```
//! Prints rows `subject,backends,ns`, then the ratios. Rounds of all subjects alternate, so that
//! other work of the machine affects all of them; each figure is the median of its rounds.
//!
//! The subjects do different work in a step:
//! - `lvs`: a pick with its lease, made and dropped, which counts a connection of the backend.
//! - `tower`: `poll_ready`, `call` and the response of a service that is always ready, with
//!   `PendingRequests` as load, which counts a request.
//! - `lvs Balance`, `lvs ReadyFirst`: the same service behind these.
//! - `by two tasks`, which share the service: each has a clone, or they use tower's `Buffer`. On
//!   two threads the figure is the wall time for a request; half of that for one thread would be
//!   perfect.
//! - `pingora`: `select`, which clones the backend and counts no connection.
//! - `hashring`: `get`, which hashes the key and searches; without health and counters.

mod ours;
mod services;
mod subject;
mod theirs;

#[path = "../../../tests/common/schedulers.rs"]
mod schedulers;

use std::process::Command;
use std::time::Duration;

use crate::subject::Subject;

/// The pairs of subjects, ours and theirs, for which a ratio is printed if both have rows.
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
            subject.measure();
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
                let is_named = |subject: &&Subject| {
                    schedulers::is(&subject.name, name) && subject.backends == n
                };
                subjects.iter().find(is_named).map(Subject::median)
            };
            if let (Some(a), Some(b)) = (median(ours), median(theirs)) {
                println!("{},{n},{:.2}", quoted(&format!("{ours} : {theirs}")), a / b);
            }
        }
    }
}

/// Returns the processor, its cores and the compiler, on which the figures depend.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!("{model}, {cores} cores, {}", rustc.unwrap_or_else(|_| "unknown rustc".to_owned()))
}

/// Returns a name as a CSV field; some names have commas.
fn quoted(name: &str) -> String {
    if name.contains(',') { format!("\"{name}\"") } else { name.to_owned() }
}
