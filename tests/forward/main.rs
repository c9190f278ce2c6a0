//! The TCP forwarder over loopback, observed by clients, backends and counters.
#![cfg(all(feature = "forward", not(lvs_loom)))]

mod basics;
mod bytes;
mod connection_table;
mod death;
mod descriptors;
mod drain;
mod ends;
mod fixture;
#[cfg(target_os = "linux")]
mod handover;
mod limits;
mod listeners;
mod pool;
mod preamble;
mod records;
mod timeouts;
