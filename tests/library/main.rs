//! Tests of sets, schedulers, balancers and persistence, of outlier ejection, and of the UDP flow table.
#![cfg(not(lvs_loom))]

#[path = "../common/mod.rs"]
mod common;
mod hashing;
mod ipvs_traces;
mod laws;
mod model;
#[cfg(feature = "health")]
mod outlier;
mod outlier_state;
mod persistence;
mod properties;
mod serialized;
mod set;
mod udp_table;
