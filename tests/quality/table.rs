//! The table of response times in the docs of `lvs::scheduler`.
//!
//! ```text
//! cargo test --release --test quality table -- --nocapture     # prints it
//! LVS_TABLES=write cargo test --release --test quality table   # writes it to the docs
//! ```

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::schedulers::scheduler;
use crate::simulation::{EQUAL, one_slow, simulate};

/// All rules except those that fill one server by design: `fo`, `ovf`, `first`.
const RULES: &[&str] = &[
    "rr",
    "wrr",
    "swrr",
    "random",
    "lc",
    "wlc",
    "sed",
    "nq",
    "twos",
    "p2c",
    "peak_ewma",
    "hot_cold",
    "dh",
    "sh",
    "mh",
    "ring",
    "rendezvous",
    "maglev",
    "bounded(maglev)",
    "lblc",
    "lblcr",
];

const HEAD: &str = "\
| rule | mean | p50 | p99 | p99 of the wait | one slow: p99 | p99 of the wait | its share |
|---|---|---|---|---|---|---|---|
";

const REQUESTS: usize = 200_000;

#[test]
fn the_table_in_the_docs_equals_the_simulation() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scheduler/quality.md");
    let table = RULES.iter().fold(String::from(HEAD), |table, rule| table + &row(rule));
    println!("{table}");
    if std::env::var_os("LVS_TABLES").is_some_and(|value| value == "write") {
        fs::write(&path, &table).expect("the file can be written");
    }
    let documented = fs::read_to_string(&path).expect("the file exists");
    let (documented, simulated) = (cells(&documented), cells(&table));
    assert_eq!(documented.len(), simulated.len(), "the docs lack rules");
    for (documented, simulated) in documented.iter().zip(&simulated) {
        // Logarithms differ in the last bit between C libraries, and a difference in a queue lasts.
        let near = match (number(documented), number(simulated)) {
            (Some(documented), Some(simulated)) => {
                (documented - simulated).abs() <= 0.1 + 0.05 * simulated
            }
            _ => documented == simulated,
        };
        assert!(
            near,
            "the docs have {documented}, the simulation {simulated}; see the head of this file"
        );
    }
}

fn row(rule: &str) -> String {
    let equal = simulate(scheduler(rule), &EQUAL, 0.9, REQUESTS);
    let slow = simulate(scheduler(rule), &one_slow(), 0.7, REQUESTS);
    let mut row = format!("| `{rule}` ");
    for (responses, value) in [
        (&equal, equal.mean()),
        (&equal, equal.quantile(0.5)),
        (&equal, equal.quantile(0.99)),
        (&equal, equal.wait(0.99)),
        (&slow, slow.quantile(0.99)),
        (&slow, slow.wait(0.99)),
    ] {
        let cell = if responses.grows { String::from("grows") } else { format!("{value:.1}") };
        write!(row, "| {cell} ").expect("memory");
    }
    row + &format!("| {:.2} % |\n", 100.0 * slow.share_of_first)
}

fn cells(table: &str) -> Vec<&str> {
    table.split('|').map(str::trim).collect()
}

fn number(cell: &str) -> Option<f64> {
    cell.trim_end_matches(" %").parse().ok()
}
