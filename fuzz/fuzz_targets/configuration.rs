//! No text makes the reader of configurations panic, and every error has its place.
//!
//! ```text
//! cargo +nightly fuzz run configuration
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::director::{DirectorConfig, DirectorConfigError};

fuzz_target!(|text: &str| {
    match DirectorConfig::parse(text) {
        Ok(config) => assert_eq!(DirectorConfig::parse(text).expect("sound"), config),
        Err(DirectorConfigError::Invalid { line, column, .. }) => {
            assert!(line >= 1 && column >= 1 && line <= text.lines().count().max(1) + 1);
        }
        Err(error) => panic!("{error} has no place"),
    }
});
