//! The schedulers that wrap another one and restrict the members or the load that it sees.

mod bounded;
pub(super) mod priority;
mod subset;
mod tier_load;

pub use self::bounded::BoundedLoad;
pub use self::priority::PriorityTiers;
pub use self::subset::RandomSubset;
