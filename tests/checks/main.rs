//! The checks, against servers that misbehave and against real ones, over loopback.
#![cfg(all(feature = "health", not(lvs_loom)))]

mod world;
