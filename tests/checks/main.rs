//! The checks, against servers that misbehave and against real ones, over loopback.
#![cfg(all(feature = "health", not(lvs_loom)))]

#[cfg(feature = "health-grpc")]
mod grpc;
mod http;
mod talk;
#[cfg(feature = "health-tls")]
mod tls;
mod world;
