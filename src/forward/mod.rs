//! The L4 forwarder: takes connections and datagrams and carries them to the backends a balancer
//! chooses.
//!
//! | to carry | there is | a page of code |
//! |---|---|---|
//! | TCP connections, from TCP or Unix sockets | [`Forwarder`] | `examples/tcp_forward.rs` |
//! | UDP flows | [`UdpForwarder`] | `examples/udp_forward.rs` |
//!
//! Both take an address to listen on and a [`Balancer<SocketAddr>`](crate::Balancer), run on threads
//! of their own, one for each core with a socket each, and end by a handle, in order or at a
//! deadline. What follows is about TCP; the other's page says what is different there.
//!
//! # From accept to end
//! 1. **Who comes in**: as many as [`max_connections`](Forwarder::max_connections), as fast as
//!    [`accept_rate`](Forwarder::accept_rate); the others wait. More than
//!    [`max_connections_per_client`](Forwarder::max_connections_per_client) are reset.
//! 2. **What comes first**: a [PROXY header](Forwarder::accept_proxy) that says who the client is, a
//!    TLS ClientHello whose server name [chooses the service](Forwarder::services_by_server_name)
//!    or [is the key](Forwarder::key_by_server_name). Wrong or late is reset.
//! 3. **Who serves**: each connection is one pick and one lease, held as long as the connection
//!    lasts, so schedulers that count connections count the real ones. Known clients
//!    [come back](Forwarder::persistence) to their backend. Where all are at their limits, clients
//!    [wait in line](Forwarder::queue).
//! 4. **Connecting**: a backend that refuses, resets or does not answer is held against it, and the
//!    next one is tried, none twice, within [attempts](Forwarder::connect_attempts) and
//!    [time](Forwarder::connect_deadline). So is one that connects and resets before anything has
//!    passed. The client notices nothing. When nobody is left the
//!    [sorry server](Forwarder::sorry_server) serves, or the client is reset.
//! 5. **Carrying**: small messages through a buffer that all connections of a thread share, bulk by
//!    `splice(2)`, so that this process never sees it. What one side does not take holds up the
//!    other: no more than a buffer or a pipe (64 and 256 KiB) is held in each direction.
//! 6. **The end**: in order when both sides have closed; each may close its half first, and a late
//!    answer is delivered. A reset on either side is passed on as a reset, also by a side that had
//!    closed already. Silence ends by [timeouts](Forwarder::idle_timeout). Whatever is not an end in
//!    order is a reset on both sides, so that nobody takes half an answer for the whole.
//!
//! # What a backend's account gets
//! | what happened | [`Outcome`](crate::Outcome) |
//! |---|---|
//! | both sides closed in order | `Ok` |
//! | the backend's side broke | `AppError` |
//! | the backend refused, reset before anything passed, or could not be reached | `ConnectError` |
//! | the backend did not answer in time | `Timeout` |
//! | the client's side broke, a timeout or the drain ended it, or this machine lacked a port or descriptor | `Cancelled` |
//!
//! The latency that `peak_ewma` and `hot_cold` learn from is the time to connect, told as soon as it
//! is known. How long a connection lasts says how long its client wanted it, not how quick the
//! backend is. A connect time shows distance and a full accept queue, and little of what the
//! program behind it takes: for request latencies balance requests, not connections.
//!
//! # What one sees
//! [`TcpHandle::counters`] has every connection in exactly one place; [`TcpHandle::backends`] the same for
//! each backend, with histograms; [`TcpHandle::connections`] is who is carried at this moment. Each
//! connection that ends makes a [`ConnectionRecord`], for an access log whose [two letters](Termination) say who
//! ended it and when. With `tracing` at debug level each connection is a span.
//!
//! # Draining and handing over
//! [`TcpHandle::shutdown`] stops accepting and waits for what runs, to a deadline, and
//! [`run`](Forwarder::run) says how many were cut. To restart without refusing anybody, hand the
//! [listening sockets](TcpHandle::listeners) to the successor first: [`handover`].
//!
//! # Cost
//! An idle connection takes some 1.6 KB beside the kernel's sockets, two descriptors, and nothing of
//! the processor. A pipe takes 256 KiB of the kernel's memory while bulk is on its way, 256 pipes at
//! the most. Workers share the published plane; what they count, each counts for itself.
//!
//! One source address has some 28 000 ports towards each backend: beyond so many connections to one
//! backend give it [more addresses](SourceAddress::Addresses).

mod accept_backoff;
mod clock;
mod connection_table;
mod counters;
mod drain_report;
mod error;
mod freebind;
#[cfg(target_os = "linux")]
#[cfg_attr(docsrs, doc(cfg(target_os = "linux")))]
pub mod handover;
mod limits;
pub mod proxy_protocol;
mod queue;
mod record;
pub mod sni;
mod tcp;
#[cfg(target_os = "linux")]
mod udp;

pub use self::connection_table::ConnectionInfo;
pub use self::counters::{RefusalCounters, TcpBackendCounters, TcpCounters, TimeoutCounters};
pub use self::drain_report::DrainReport;
pub use self::error::ForwardError;
pub use self::limits::ConnectionRate;
pub use self::queue::QueueCounters;
pub use self::record::{
    ConnectionPhase, ConnectionRecord, RecordValue, Termination, TerminationReason,
};
pub use self::tcp::{Forwarder, ProxyHeaderOptions, SourceAddress, TcpHandle};
#[cfg(target_os = "linux")]
pub use self::udp::{
    Coalesce, FlowEndCounters, ShedCounters, UdpBackendCounters, UdpCounters, UdpForwarder,
    UdpHandle, UdpTraffic, UndeliveredCounters,
};
pub use crate::histogram::DurationHistogram;
