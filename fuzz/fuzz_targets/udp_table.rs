//! Checks that the UDP flow table agrees with a plain list under any sequence of operations.
//!
//! ```text
//! cargo +nightly fuzz run udp_table
//! ```
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/common/flow_model.rs"]
mod flow_model;
#[allow(dead_code, reason = "the model does not use all of the table")]
#[path = "../../src/forward/udp/flow_table.rs"]
mod flow_table;

use self::flow_model::{Shape, Step, compare};

#[derive(Arbitrary, Debug)]
struct Run {
    shape: Shape,
    steps: Vec<Step>,
}

/// Each step checks all ids of ended flows.
const MAX_STEPS: usize = 300;

fuzz_target!(|run: Run| {
    compare(run.shape, &run.steps[..run.steps.len().min(MAX_STEPS)]);
});
