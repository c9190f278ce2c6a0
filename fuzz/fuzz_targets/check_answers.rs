//! No answer of a checked server makes a parser panic, and the properties of each parser hold.
//!
//! ```text
//! cargo +nightly fuzz run check_answers
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::health::fuzzing::check_parser;

fuzz_target!(|input: (u8, &[u8])| check_parser(input.0, input.1));
