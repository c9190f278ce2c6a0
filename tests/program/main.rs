//! The program `lvs` as a process.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod arguments;
mod chaos;
mod configuration;
mod ctl;
mod demonstration;
mod descriptors;
#[path = "../common/loopback.rs"]
mod loopback;
mod package;
#[path = "../common/skipped.rs"]
mod skipped;
mod top;
mod world;
