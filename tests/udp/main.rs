//! The UDP forwarder over loopback: what clients, backends and counters see of it.
#![cfg(all(feature = "forward", target_os = "linux", not(lvs_loom)))]

mod basics;
mod coalescing;
mod descriptors;
mod drain;
mod failover;
mod limits;
mod one_packet;
mod timeouts;
mod world;
