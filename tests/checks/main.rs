//! The checks, against servers that misbehave and against real ones, over loopback.
#![cfg(all(feature = "health", not(lvs_loom)))]

mod command;
#[cfg(feature = "health-dns")]
mod dns;
mod file;
#[cfg(feature = "health-grpc")]
mod grpc;
mod http;
mod icmp;
#[path = "../common/loopback.rs"]
mod loopback;
mod monitor;
mod servers;
#[path = "../common/skipped.rs"]
mod skipped;
mod streams;
#[cfg(feature = "health-tls")]
mod tls;
mod udp;
mod world;
