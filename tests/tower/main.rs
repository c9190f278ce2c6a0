//! Tests of the tower services.
#![cfg(all(feature = "tower", not(lvs_loom)))]

mod balance;
mod cancel;
mod hedge;
#[cfg(feature = "tower-http")]
mod http;
mod keys;
#[cfg(feature = "discovery-tower")]
mod make;
mod ready_first;
mod reconnect;
mod retry;
mod served_by;
mod settings;
mod timeout;
mod tower_cases;
mod weak_points;
mod world;
