//! The packet engine's thread and what speaks to it.
//!
//! [`PacketEngine`] starts a thread (`worker`) that owns the maps. It keeps the services as their sets say
//! (`virtual_service`, `service_table`, `wanted_server`, `server_slots`), follows devices and routes
//! (`surroundings`), decides the packets that the program sends it by a tap device (`upcall`), takes the flows that
//! a table has decided (`adoption`), and keeps a lease for each flow (`flow_table`, `flow`, `kernel_flow`) until the
//! program says that it has ended, or nothing was seen of it for too long; the ends are recorded (`flow_ends`). One
//! process follows another (`succession`, `left_state`). Owners of services (`handle`) send it commands
//! (`service_commands`, `service_entries`).

mod adoption;
mod command;
mod flow;
mod flow_ends;
mod flow_table;
mod handle;
mod kernel_flow;
mod left_state;
#[cfg(test)]
mod rule_tests;
mod server_slots;
mod service_commands;
mod service_entries;
mod service_table;
mod start;
mod succession;
mod surroundings;
mod tap;
mod upcall;
mod virtual_service;
mod wanted_server;
mod worker;

pub use self::start::PacketEngine;
