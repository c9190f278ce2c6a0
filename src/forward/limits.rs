//! Who may come in: how many connections a listener and a client have, and how fast new ones come.
//!
//! | part | bounds | shared by |
//! |---|---|---|
//! | [`Slots`] | connections of a listener | its workers |
//! | [`PerClient`] | connections of one client network | any number of listeners |
//! | [`AcceptRate`] | new connections in a second | nobody: one owner, or a lock |
//!
//! Connections of a backend are bounded by its own [`Limits`](crate::Limits); the line for a place
//! there is the [queue](super::queue).

mod per_client;
mod rate;
mod slots;

pub(super) use self::per_client::{PerClient, Place};
pub(super) use self::rate::AcceptRate;
pub use self::rate::Rate;
pub(super) use self::slots::{Slot, Slots};
