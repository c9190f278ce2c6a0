//! VRRP: messages, authentication, election, and virtual routers in network namespaces.
#![cfg(all(feature = "vrrp", not(lvs_loom)))]

mod adverts;
mod auth;
mod election;
#[cfg(target_os = "linux")]
mod keepalived;
#[cfg(target_os = "linux")]
mod link;
mod simulation;
mod sync_group;
#[cfg(target_os = "linux")]
mod virtual_router;
mod world;
