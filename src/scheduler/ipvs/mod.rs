//! The schedulers of Linux IPVS, which decide as the kernel does.

mod destination_cache;
mod dh;
mod fo;
mod lblc;
mod lblcr;
mod lc;
mod least_cost;
mod list_order;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

pub use self::dh::DestinationHash;
pub use self::fo::WeightedFailover;
pub use self::lblc::LocalityLeastConnections;
pub use self::lblcr::ReplicatedLocalityLeastConnections;
pub use self::lc::LeastConnections;
pub use self::least_cost::{ConnectionOverhead, ParseOverheadError};
pub use self::mh::IpvsMaglevHash;
pub use self::nq::NeverQueue;
pub use self::ovf::OverflowConnections;
pub use self::rr::RoundRobin;
pub use self::sed::ShortestExpectedDelay;
pub use self::sh::SourceHash;
pub use self::twos::IpvsTwoChoices;
pub use self::wlc::WeightedLeastConnections;
pub use self::wrr::WeightedRoundRobin;
