//! A connection to a target, made on demand and made again after it breaks.

mod config;
mod connection;
mod error;
mod future;
mod make;
mod service;

pub use self::config::ReconnectConfig;
pub use self::error::{ConnectError, ConnectTimeout};
pub use self::future::ReconnectFuture;
pub use self::make::Connect;
pub use self::service::Reconnect;
