//! The balancer as a tower service.
#![cfg(all(feature = "tower", not(lvs_loom)))]

mod balance;
mod cancel;
#[cfg(feature = "tower-http")]
mod http;
mod keys;
mod ready_first;
mod retry;
mod weak_points;
mod world;
