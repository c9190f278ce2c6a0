//! Parsing a batch of flows does not panic on any bytes, and encoding the parsed batch gives an equal one.
//!
//! ```text
//! cargo +nightly fuzz run flow_batch
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::packet::FlowBatch;

fuzz_target!(|bytes: &[u8]| {
    let Ok(batch) = FlowBatch::parse(bytes) else { return };
    assert!(batch.flows.len() <= FlowBatch::MAX_FLOWS);
    assert_eq!(FlowBatch::parse(&batch.encode()), Ok(batch));
});
