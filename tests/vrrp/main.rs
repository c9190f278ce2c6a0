//! VRRP: messages and election.
#![cfg(all(feature = "vrrp", not(lvs_loom)))]

mod adverts;
mod auth;
mod election;
mod group;
mod simulation;
mod world;
