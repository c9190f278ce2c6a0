//! The director's configuration in TOML: a file for each table.
//!
//! The doc comments of keys are the operators' reference: `tests/configuration_reference.rs` writes
//! `docs/configuration.md` from them.

mod admin;
mod availability;
mod check;
mod check_builder;
mod check_tls;
mod config_file;
mod director_config;
mod discovery;
mod document;
mod ejection;
mod error;
mod listen;
mod log;
mod persistence;
mod real_server;
mod service;
mod slow_start;
mod sync;
mod tcp;
mod udp;
mod value;
mod vrrp;

pub(crate) use self::admin::AdminConfig;
pub use self::director_config::DirectorConfig;
pub(crate) use self::discovery::{ConfiguredSource, DiscoveryConfig};
pub use self::error::DirectorConfigError;
pub(crate) use self::listen::{ListenAddress, ServiceProtocol};
pub use self::log::{LogConfig, LogFormat, LogLevel};
pub use self::real_server::RealServer;
pub(crate) use self::service::ServiceConfig;
pub(crate) use self::slow_start::SlowStartConfig;
pub(crate) use self::sync::SyncConfig;
pub(crate) use self::value::{HumanDuration, SecretString};
pub(crate) use self::vrrp::{SERVICE_TRACK_PREFIX, TrackConfig, VrrpConfig};

#[cfg(test)]
mod tests;
