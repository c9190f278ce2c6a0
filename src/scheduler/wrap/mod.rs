//! Schedulers that wrap another scheduler and restrict its members or their load.

mod bounded;
pub(super) mod priority;
mod subset;
mod tier_load;

pub use self::bounded::BoundedLoad;
pub use self::priority::PriorityTiers;
pub use self::subset::RandomSubset;
