//! Parses any text as a configuration: no panic, and every error has a line and a column of the text.
//!
//! ```text
//! cargo +nightly fuzz run configuration
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::director::{DirectorConfig, DirectorConfigError};

fuzz_target!(|text: &str| {
    let error = match DirectorConfig::parse(text) {
        Ok(config) => {
            return assert_eq!(DirectorConfig::parse(text).expect("the same text"), config);
        }
        Err(error) => error,
    };
    let lines = text.lines().count().max(1) + 1;
    for error in error.iter() {
        match error {
            DirectorConfigError::Invalid { line, column, .. } => {
                assert!((1..=lines).contains(line) && *column >= 1, "{error}");
            }
            error => panic!("the error has no line: {error}"),
        }
    }
});
