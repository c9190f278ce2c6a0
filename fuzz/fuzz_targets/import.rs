//! Imports any text: no panic, and the result of an import is a valid configuration.
//!
//! ```text
//! cargo +nightly fuzz run import
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::director::{DirectorConfig, import};

fuzz_target!(|text: &str| {
    let Ok(converted) = import(text) else { return };
    // A configuration requires a service, which the imported text need not have.
    let complete = format!("{converted}\n[[service]]\nname = \"_\"\nlisten = \"unix:/_\"\n");
    if let Err(error) = DirectorConfig::parse(&complete) {
        panic!("{error}\n{complete}");
    }
});
