//! The packet engine's thread and what speaks to it.
//!
//! [`PacketEngine`] starts a thread (`worker`) that owns the maps. It keeps the services as their sets say
//! (`virtual_service`, `service_table`, `wanted_server`, `server_slots`), follows devices and routes
//! (`surroundings`), decides the packets that the program sends it by a tap device (`upcall`), takes the flows that
//! a table has decided (`adoption`), and keeps a lease for each flow (`flow_table`, `flow`, `kernel_flow`) until the
//! program says that it has ended, or nothing was seen of it for too long; the ends are recorded (`flow_ends`). One
//! process follows another (`succession`, `left_state`). Owners of services (`handle`) send it commands
//! (`service_commands`, `service_entries`, `service_counters`). What is to be done every second is in `audit`.
//!
//! The engine of another machine is told of the flows (`flow_feeds`, `flow_follower`, `flow_changes`, `flow_walk`), and
//! one that is told of flows keeps them (`restored_flows`, `followed_engine`, `flows_elsewhere`) until this machine has their address
//! (`held_addresses`).

mod adoption;
mod audit;
mod checks;
mod command;
mod flow;
mod flow_changes;
mod flow_ends;
mod flow_feeds;
mod flow_follower;
mod flow_table;
mod flow_walk;
mod flows_elsewhere;
mod followed_engine;
mod handle;
mod held_addresses;
mod kernel_flow;
mod left_state;
mod restored_flows;
#[cfg(test)]
mod rule_tests;
mod server_slots;
mod service_commands;
mod service_counters;
mod service_entries;
mod service_table;
mod start;
mod succession;
mod surroundings;
#[cfg(test)]
mod sync_tests;
mod tap;
mod upcall;
mod virtual_service;
mod wanted_server;
mod worker;
mod xdp_devices;

pub use self::start::PacketEngine;
