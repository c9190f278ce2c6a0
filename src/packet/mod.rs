//! The packet engine.

mod engine;
mod error;
mod frame;
mod layout;
mod maps;
mod netlink;
mod program;
mod settings;
mod statistics;

pub use self::engine::PacketEngine;
pub use self::error::PacketError;
pub use self::settings::PacketSettings;
pub use self::statistics::PacketStatistics;

#[cfg(test)]
mod object_tests;
