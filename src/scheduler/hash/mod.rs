//! The consistent hash schedulers: the same key to the same backend.

mod maglev;
mod rendezvous;
mod ring;
mod seed;
mod table_key;

pub use self::maglev::Maglev;
pub use self::rendezvous::RendezvousHash;
pub use self::ring::RingHash;
