//! VRRP: messages and election.
#![cfg(all(feature = "vrrp", not(lvs_loom)))]

mod adverts;
mod auth;
mod election;
mod group;
#[cfg(target_os = "linux")]
mod keepalived;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod shell;
mod simulation;
mod world;
