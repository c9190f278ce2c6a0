//! The TCP forwarder over loopback: what clients, backends and counters see of it.
#![cfg(all(feature = "forward", not(lvs_loom)))]

mod basics;
mod bytes;
mod death;
mod descriptors;
mod drain;
mod ends;
mod limits;
mod listeners;
mod live;
mod preamble;
mod records;
mod timeouts;
mod world;
