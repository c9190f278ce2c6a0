//! The consistent hash schedulers, which select the same backend for the same key.

mod maglev;
mod rendezvous;
mod ring;
mod seed;
mod table_key;

pub use self::maglev::Maglev;
pub use self::rendezvous::RendezvousHash;
pub use self::ring::RingHash;
