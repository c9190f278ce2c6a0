//! The L4 forwarder: takes connections and carries them to the backends a balancer chooses.
//!
//! A [`Forwarder`] is one listening TCP socket, a [`Balancer<SocketAddr>`](crate::Balancer) and a few
//! limits. Each connection is one pick and one lease, held for as long as the connection lasts, so
//! the schedulers that count connections count the real ones.
//!
//! # What a client notices
//! Nothing of a backend that refuses or does not answer: the connection is tried on the next one, up
//! to [`connect_attempts`](Forwarder::connect_attempts) in all. When nobody is left it is reset.
//!
//! A connection ends in order when both sides have closed; each side may close its half first. One
//! that breaks, is refused or is cut ends with a reset on both sides, so that nobody takes half an
//! answer for the whole.
//!
//! # What a backend's account gets
//! | what happened | [`Outcome`](crate::Outcome) |
//! |---|---|
//! | both sides closed in order | `Ok` |
//! | the backend's side broke | `AppError` |
//! | the backend refused or could not be reached | `ConnectError` |
//! | the backend did not answer in time | `Timeout` |
//! | the client's side broke, the connection was cut, or this machine lacked a port or descriptor | `Cancelled` |
//!
//! The latency that `peak_ewma` and `hot_cold` learn from is the time to connect, told as soon as it
//! is known. How long a connection lasts says how long its client wanted it, not how quick the
//! backend is. A connect time shows distance and a full accept queue, and little of what the
//! program behind it takes: for request latencies balance requests, not connections.
//!
//! # Cost
//! One task and two buffers of 8 KiB for each connection; every byte is copied through this process
//! twice. Connections share the plane and the counters and nothing else.
//!
//! # Limits
//! There is no idle timeout: a connection that neither side closes keeps its place.

mod backoff;
mod clock;
mod counters;
mod error;
mod handle;
#[cfg(target_os = "linux")]
#[cfg_attr(docsrs, doc(cfg(target_os = "linux")))]
pub mod handover;
mod histogram;
mod limits;
pub mod proxy_protocol;
mod queue;
mod record;
pub mod sni;
mod tcp;
#[cfg(target_os = "linux")]
mod udp;

pub use self::counters::{BackendCounters, Counters, Refusals, TimedOut};
pub use self::error::ForwardError;
pub use self::handle::{Drained, Handle};
pub use self::histogram::Durations;
pub use self::limits::Rate;
pub use self::queue::QueueCounters;
pub use self::record::{Cause, Phase, Record, Termination, Value};
pub use self::tcp::{Forwarder, ProxyOut, Source};
#[cfg(target_os = "linux")]
pub use self::udp::{
    Coalesce, FlowEnds, Sheds, Traffic, UdpBackendCounters, UdpCounters, UdpForwarder, UdpHandle,
    Undelivered,
};
