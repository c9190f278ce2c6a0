//! Checks that no text makes the registry panic, and that every scheduler it builds is usable.
//!
//! ```text
//! cargo +nightly fuzz run registry
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::scheduler::Rng;
use lvs::{BackendSet, Balancer, Flow, Spec};

fuzz_target!(|text: &str| {
    let Ok(rule) = lvs::scheduler::parse(text) else { return };
    assert!(!rule.name().is_empty());
    // An empty set and a small set: every accepted scheduler must pick.
    let set = BackendSet::new();
    let Ok(balancer) = Balancer::new(&set, rule) else { return };
    assert!(balancer.pick_with_rng(&Flow::new(), &mut Rng::with_seed(1)).is_err());
    if set.insert(Spec::new("a", ())).is_ok() {
        drop(balancer.pick_with_rng(&Flow::new().key(1), &mut Rng::with_seed(1)));
    }
});
