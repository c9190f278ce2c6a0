//! Parses any text as a configuration: no panic, and every error has a line and a column of the text.
//!
//! ```text
//! cargo +nightly fuzz run configuration
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::director::{DirectorConfig, DirectorConfigError};

fuzz_target!(|text: &str| {
    match DirectorConfig::parse(text) {
        Ok(config) => assert_eq!(DirectorConfig::parse(text).expect("the same text"), config),
        Err(DirectorConfigError::Invalid { line, column, .. }) => {
            assert!(line >= 1 && column >= 1 && line <= text.lines().count().max(1) + 1);
        }
        Err(error) => panic!("the error has no line: {error}"),
    }
});
