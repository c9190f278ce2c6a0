//! The UDP flow table under any sequence of operations: it does what a plain list would.
//!
//! ```text
//! cargo +nightly fuzz run udp_table
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/flow_model.rs"]
mod flow_model;
#[allow(dead_code, reason = "the forwarder uses more of it than the model")]
#[path = "../../src/forward/udp/flow_table.rs"]
mod flow_table;

use self::flow_model::{Shape, Step, compare};

#[derive(Arbitrary, Debug)]
struct Run {
    shape: Shape,
    steps: Vec<Step>,
}

/// The list is searched for every name that has ended.
const STEPS_MAX: usize = 300;

fuzz_target!(|run: Run| {
    compare(run.shape, &run.steps[..run.steps.len().min(STEPS_MAX)]);
});
