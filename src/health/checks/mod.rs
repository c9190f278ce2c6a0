//! The built-in checks, one file each, and the parts that they share.

mod agent;
mod command;
mod datagram;
#[cfg(feature = "health-dns")]
mod dns;
mod file;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "health-grpc")]
mod grpc;
mod http;
mod http_client;
mod icmp;
mod mysql;
mod name_error;
mod postgres;
mod quote;
mod redis;
mod smtp;
mod stream;
mod tcp;
#[cfg(feature = "health-tls")]
mod tls;
mod udp;

pub use self::agent::AgentCheck;
pub use self::command::{CommandCheck, CommandCheckError};
#[cfg(feature = "health-dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-dns")))]
pub use self::dns::{DnsCheck, DnsCheckError};
pub use self::file::FileCheck;
#[cfg(feature = "health-grpc")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-grpc")))]
pub use self::grpc::GrpcCheck;
pub use self::http::{HttpCheck, HttpCheckError};
pub use self::icmp::IcmpCheck;
pub use self::mysql::MysqlCheck;
pub use self::name_error::CheckNameError;
pub use self::postgres::PostgresCheck;
pub use self::redis::RedisCheck;
pub use self::smtp::SmtpCheck;
pub use self::tcp::TcpCheck;
#[cfg(feature = "health-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
pub use self::tls::{TlsCheck, TlsSettings, TlsSettingsError};
pub use self::udp::{BytePattern, BytePatternError, UdpCheck};
