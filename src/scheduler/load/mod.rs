//! Schedulers by weight, connection counts and latency, beyond those of IPVS.

mod first;
mod hot_cold;
mod p2c;
mod peak_ewma;
mod random;
mod swrr;

pub use self::first::FirstAvailable;
pub use self::hot_cold::{HotCold, LoadProbe, LoadProbeResult, LocalLoadProbe};
pub use self::p2c::PowerOfTwoChoices;
pub use self::peak_ewma::PeakEwma;
pub use self::random::WeightedRandom;
pub use self::swrr::SmoothWeightedRoundRobin;
