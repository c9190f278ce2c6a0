//! The UDP forwarder: flows of datagrams between clients and the backends that a balancer picks.

mod counters;
mod earlier_flows;
mod flow_record;
mod flow_table;
mod flows;
mod forwarder;
mod handle;
mod metrics;
mod options;
mod outbox;
mod settings;
mod socket;
mod worker;

pub use self::counters::{
    FlowEndCounters, ShedCounters, UdpBackendCounters, UdpCounters, UdpTraffic, UndeliveredCounters,
};
pub use self::flow_record::FlowRecord;
pub use self::forwarder::UdpForwarder;
pub use self::handle::UdpHandle;
pub use self::options::Coalesce;
#[cfg(feature = "director")]
pub(crate) use self::options::UdpOptions;
