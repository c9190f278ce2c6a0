//! The UDP forwarder over loopback, as seen by clients, backends and counters.
#![cfg(all(feature = "forward", target_os = "linux", not(lvs_loom)))]

mod basics;
mod coalescing;
mod descriptors;
mod drain;
mod failover;
mod limits;
mod one_packet;
mod sorry_server;
mod timeouts;
mod world;
