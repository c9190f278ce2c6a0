//! Who may come in: how many connections a listener and a client have, and how fast new ones come.
//!
//! | part | bounds | shared by |
//! |---|---|---|
//! | [`ConnectionPermits`] | connections of a listener | its workers |
//! | [`ClientLimits`] | connections of one client network | any number of listeners |
//! | [`AcceptTokenBucket`] | new connections in a second | nobody: one owner, or a lock |
//!
//! Connections of a backend are bounded by its own [`Limits`](crate::Limits); the line for a place
//! there is the [queue](super::queue).

mod client_limits;
mod connection_permits;
mod rate;

pub(super) use self::client_limits::{ClientLimits, ClientPermit};
pub(super) use self::connection_permits::{ConnectionPermit, ConnectionPermits};
pub(super) use self::rate::AcceptTokenBucket;
pub use self::rate::ConnectionRate;
