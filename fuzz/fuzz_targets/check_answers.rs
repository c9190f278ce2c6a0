//! No answer of a server that is checked makes a parser panic, and what a parser says of it holds.
//!
//! ```text
//! cargo +nightly fuzz run check_answers
//! ```
#![no_main]

use libfuzzer_sys::fuzz_target;
use lvs::health::fuzzing::read;

fuzz_target!(|answer: (u8, &[u8])| read(answer.0, answer.1));
