//! No text makes the importers panic, and what they write is a configuration.
//!
//! ```text
//! cargo +nightly fuzz run import
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::director::{DirectorConfig, import};

fuzz_target!(|text: &str| {
    let Ok(written) = import(text) else { return };
    // A configuration without any service is none.
    let whole = format!("{written}\n[[service]]\nname = \"_\"\nlisten = \"unix:/_\"\n");
    if let Err(error) = DirectorConfig::parse(&whole) {
        panic!("{error}\n{whole}");
    }
});
