//! The errors of engines.

use std::error::Error as StdError;

use thiserror::Error;

use super::address::EngineAddress;

/// The reason for which an engine cannot be used, or does not serve an address.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The machine lacks what the engine needs: a module of the kernel, or a capability of the process.
    #[error("engine {engine} cannot be used here: {source}")]
    Unavailable {
        /// The engine's name.
        engine: &'static str,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The engine cannot do what the request asks for.
    #[error("engine {engine} cannot serve {address}: {reason}")]
    Refused {
        /// The engine's name.
        engine: &'static str,
        /// The virtual address, or the firewall mark.
        address: EngineAddress,
        /// What it cannot do.
        reason: String,
    },
    /// The kernel refused the service or one of its servers.
    #[error("engine {engine} does not serve {address}: {source}")]
    Kernel {
        /// The engine's name.
        engine: &'static str,
        /// The virtual address, or the firewall mark.
        address: EngineAddress,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The engine cannot tell another one of its flows, or not keep those that another one has told of.
    #[error("engine {engine} cannot synchronize its flows: {source}")]
    Flows {
        /// The engine's name.
        engine: &'static str,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The engine's table of connections and persistent clients cannot be read.
    #[error("engine {engine} cannot list the connections of {address}: {source}")]
    Entries {
        /// The engine's name.
        engine: &'static str,
        /// The virtual address, or the firewall mark.
        address: EngineAddress,
        /// The cause.
        source: Box<dyn StdError + Send + Sync>,
    },
}
