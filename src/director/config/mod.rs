//! The director's configuration, in TOML and in Rust: a file for each table.
//!
//! A table is defined once, by `config_table!` of `table.rs`: the type that serde reads, and its builder,
//! which has a setter for each key. A builder and a file go through the same checks.
//!
//! The doc comments of keys are the operators' reference: `tests/configuration_reference.rs` writes
//! `docs/configuration.md` from them.

mod address_announce;
mod admin;
mod announce;
mod availability;
mod check;
mod check_builder;
mod check_tls;
mod config_file;
mod custom;
mod director_config;
mod discovery;
mod document;
mod ejection;
mod engine;
mod engine_refusals;
mod error;
mod ipvs;
mod known_routers;
mod listen;
mod log;
mod notify;
mod origin;
mod packet;
mod parser_message;
mod persistence;
mod real_server;
mod scheduler;
mod service;
mod slow_start;
mod sync;
mod table;
mod tcp;
mod track;
mod udp;
mod value;
mod virtual_address;
mod virtual_route;
mod vrrp;

pub use self::address_announce::{AddressAnnounceConfig, AddressAnnounceConfigBuilder};
pub use self::admin::{AdminConfig, AdminConfigBuilder};
pub use self::announce::{AnnounceConfig, AnnounceConfigBuilder, WithoutQuorumConfig};
pub use self::availability::{QuorumConfig, QuorumConfigBuilder};
pub use self::check::{CheckConfig, CheckConfigBuilder, CheckProxyConfig, RedisRoleConfig};
pub use self::check_tls::{CheckTlsConfig, CheckTlsConfigBuilder, TlsTrustConfig};
pub use self::config_file::DirectorConfigBuilder;
pub use self::director_config::DirectorConfig;
pub(crate) use self::discovery::ConfiguredSource;
pub use self::discovery::{DiscoveryConfig, DiscoveryConfigBuilder};
pub use self::ejection::{
    EjectionConfig, EjectionConfigBuilder, FailurePercentageConfig, FailurePercentageConfigBuilder,
    LatencyFactorConfig, LatencyFactorConfigBuilder, SuccessRateConfig, SuccessRateConfigBuilder,
};
pub use self::engine::{
    EngineKind, ServerMethod, TunnelChecksumConfig, TunnelConfig, TunnelConfigBuilder,
    TunnelEncapsulation,
};
pub use self::error::DirectorConfigError;
pub use self::ipvs::{IpvsConfig, IpvsConfigBuilder, IpvsSyncConfig, IpvsSyncConfigBuilder};
pub use self::listen::{ListenAddress, ServiceProtocol};
pub use self::log::{LogConfig, LogConfigBuilder, LogFormat, LogLevel};
pub use self::notify::{NotifyCommandConfig, NotifyCommandConfigBuilder, NotifyCommandList};
pub use self::packet::{PacketConfig, PacketConfigBuilder, XdpModeConfig};
pub use self::persistence::{PersistenceConfig, PersistenceConfigBuilder};
pub use self::real_server::{RealServer, RealServerBuilder};
pub use self::scheduler::SchedulerConfig;
pub use self::service::{ServiceConfig, ServiceConfigBuilder};
pub use self::slow_start::{SlowStartConfig, SlowStartConfigBuilder};
pub use self::sync::{SyncConfig, SyncConfigBuilder};
pub use self::tcp::{
    SourceAddressConfig, TcpConfig, TcpConfigBuilder, TcpQueueConfig, TcpQueueConfigBuilder,
};
pub(crate) use self::track::SERVICE_TRACK_PREFIX;
pub use self::track::{TrackConfig, TrackConfigBuilder};
pub use self::udp::{UdpConfig, UdpConfigBuilder};
pub use self::value::{CodeRanges, DurationOrNever, HexSecret, SecretString};
pub(crate) use self::value::{HumanDuration, OneOrMany, decode_hex};
pub use self::virtual_route::{VirtualRouteConfig, VirtualRouteConfigBuilder};
pub use self::vrrp::{VrrpConfig, VrrpConfigBuilder};

#[cfg(test)]
mod builder_tests;
#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod packet_tests;
#[cfg(test)]
mod tests;
