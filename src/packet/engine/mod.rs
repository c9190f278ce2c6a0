//! The packet engine's thread and what speaks to it.
//!
//! [`PacketEngine`] starts a thread (`worker`) that owns the maps. It keeps the services as their sets say
//! (`virtual_service`, `server_slots`), follows devices and routes (`surroundings`), decides the packets that
//! the program sends it by a tap device (`upcall`), takes the flows that a table has decided (`adoption`), and
//! keeps a lease for each flow (`flow_table`) until the program says that it has ended, or nothing was seen of
//! it for too long. One process follows another (`succession`, `left_state`). Owners of services (`handle`) send
//! it commands (`service_commands`).

mod adoption;
mod command;
mod flow_table;
mod handle;
mod left_state;
mod server_slots;
mod service_commands;
mod start;
mod succession;
mod surroundings;
mod tap;
mod upcall;
mod virtual_service;
mod worker;

pub use self::start::PacketEngine;
