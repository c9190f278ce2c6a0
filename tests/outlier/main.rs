//! Outlier ejection: every detector at its thresholds, every time to the millisecond, the cap, the
//! trials, what survives, and laws over random schedules. Time is an argument throughout.
#![cfg(all(feature = "health", not(lvs_loom)))]

mod cap;
mod detectors;
mod policy;
mod properties;
mod saved;
mod times;
mod world;
