//! The consistent hash schedulers: the same key to the same backend.

mod maglev;
mod rendezvous;
mod ring;
mod table_key;

pub use self::maglev::{Maglev, MaglevTableSizeError};
pub use self::rendezvous::RendezvousHash;
pub use self::ring::RingHash;
