//! Limits on accepted connections: how many a listener and a client may have, and the rate of new
//! connections.
//!
//! | type | limits | shared by |
//! |---|---|---|
//! | [`ConnectionPermits`] | open connections of a listener | its worker threads |
//! | [`ClientLimits`] | open connections of a client network | any number of listeners |
//! | [`AcceptTokenBucket`] | new connections per second | none: has one owner, or a lock |
//!
//! The connections of a backend are limited by its [`Limits`](crate::Limits); connections wait for a
//! backend below its limit in the [queue](super::queue).

mod client_limits;
mod connection_permits;
mod rate;

pub(super) use self::client_limits::{ClientLimits, ClientPermit, ClientPrefixes};
pub(super) use self::connection_permits::{ConnectionPermit, ConnectionPermits};
pub(super) use self::rate::AcceptTokenBucket;
pub use self::rate::ConnectionRate;
