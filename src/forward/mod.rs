//! The L4 forwarders: accept connections and datagrams, and forward them to the backends that a
//! balancer picks.
//!
//! | to forward | type | example |
//! |---|---|---|
//! | TCP connections, from TCP or Unix sockets | [`Forwarder`] | `examples/tcp_forward.rs` |
//! | UDP flows | [`UdpForwarder`] | `examples/udp_forward.rs` |
//!
//! Both listen on an address, send their clients along a [`Route`] (a
//! [`Balancer<SocketAddr>`](crate::Balancer), with persistence, a queue and a sorry server if you like),
//! run on worker threads of their own or on those of a [`WorkerPool`], and are shut down by a handle, with
//! or without a drain. The sections below are about TCP; [`UdpForwarder`] documents the differences.
//!
//! # What each protocol has
//! | feature | TCP | UDP |
//! |---|---|---|
//! | schedulers, weights, health, limits of a backend | yes | yes; a flow counts as an inactive connection |
//! | persistence, sorry server | yes | yes |
//! | other backends when one refuses | yes | yes, if the host answers with ICMP |
//! | limit for all clients | `max_connections`: further clients wait | `max_flows`: unanswered flows are evicted |
//! | limit for a client, by prefix | yes | yes |
//! | when the backend is down | connections stay, or end by `cut_on_down` | flows move to another backend |
//! | idle and total timeout | yes | yes |
//! | drain, handover to a successor, list of what is open | yes | yes |
//! | queue for backends at their limits | yes | no: a datagram that waits is sent again by its client |
//! | rate of new clients (`accept_rate`) | yes | no: a datagram cannot wait in the kernel's accept queue |
//! | PROXY protocol, services and keys by server name | yes | no: they are of the first bytes of a stream |
//! | record of each end (`on_end`) | [`ConnectionRecord`] | [`FlowRecord`] |
//! | one-packet scheduling, expected replies | no: a connection is no datagram | yes |
//!
//! In a configuration the keys of what a protocol lacks are in the table of the other protocol, and a
//! service that has both tables is refused.
//!
//! # From accept to end
//! 1. **Admission**: up to [`max_connections`](Forwarder::max_connections) are open at a time, and new
//!    connections are accepted at up to [`accept_rate`](Forwarder::accept_rate); further connections
//!    wait. Connections above
//!    [`max_connections_per_client`](Forwarder::max_connections_per_client) are reset.
//! 2. **Preamble**: a [PROXY header](Forwarder::accept_proxy) that names the client, and a TLS
//!    ClientHello whose server name [selects the service](Forwarder::services_by_server_name) or [is
//!    the key of the flow](Forwarder::key_by_server_name). A connection with an invalid or late
//!    preamble is reset.
//! 3. **Pick**: each connection is one pick and one lease, held until the connection ends, so
//!    schedulers that count connections count open connections. [Persistence](Route::persistent)
//!    sends a known client to the same backend. If all backends are at their limits, connections wait
//!    in the [queue](Route::queue).
//! 4. **Connect**: if a backend refuses, resets or times out, its failure is counted and the next
//!    backend is tried, each at most once, within a number of
//!    [attempts](Forwarder::connect_attempts) and a [time](Forwarder::connect_deadline). The same
//!    applies to a backend that accepts and resets before any byte is relayed. The client notices
//!    nothing. If no backend is left, the [sorry server](Route::sorry_server) serves, or the
//!    client is reset.
//! 5. **Relay**: small messages are copied through a buffer that all connections of a thread share,
//!    bulk data is moved by `splice(2)` and never enters this process. Back-pressure: at most a buffer
//!    or a pipe (64 and 256 KiB) is held in each direction until the other side accepts it.
//! 6. **End**: in order when both sides have closed; each side may close its half first, and a late
//!    answer is still delivered. A reset of either side is passed on as a reset, even after that side
//!    has closed its half. Idle connections end by [timeouts](Forwarder::idle_timeout). Every end that
//!    is not in order is a reset of both sides, so that no side takes a truncated answer for a complete
//!    answer.
//!
//! # Outcomes of a backend
//! | what happened | [`Outcome`](crate::Outcome) |
//! |---|---|
//! | both sides closed in order | `Ok` |
//! | the connection broke on the backend's side | `AppError` |
//! | the backend refused, reset before any byte was relayed, or was unreachable | `ConnectError` |
//! | the attempt to connect timed out | `Timeout` |
//! | the connection broke on the client's side, a timeout or the drain ended it, or this machine lacked a port or descriptor | `Cancelled` |
//!
//! The latency for `peak_ewma` and `hot_cold` is the time to connect, observed as soon as it is known.
//! The duration of a connection depends on its client, not on the speed of the backend. The time to
//! connect shows distance and a full accept queue, but hardly the load of the program behind it: for
//! request latencies balance requests, not connections.
//!
//! # Observability
//! [`TcpHandle::counters`] counts every connection in exactly one counter; [`TcpHandle::backends`] has
//! counters and histograms for each backend; [`TcpHandle::connections`] lists open connections. Each
//! connection that ends makes a [`ConnectionRecord`] for an access log; its [two-letter
//! code](Termination) tells which side ended the connection, and when. With `tracing` at debug level
//! each connection is a span.
//!
//! # Drain and handover
//! [`TcpHandle::shutdown`] stops accepting and waits for open connections up to a deadline;
//! [`run`](Forwarder::run) returns how many were cut. For a restart that refuses no connection, first
//! transfer the [listening sockets](TcpHandle::sockets) to the successor: [`handover`].
//!
//! # Descriptors
//! A TCP connection takes two descriptors and a UDP flow one, of the limit of open files of the process,
//! which programs [raise](raise_descriptor_limit) when they start. Some are [kept
//! back](set_descriptor_reserve) for health checks and operators. When connections and flows have taken
//! the others ([`descriptor_usage`]), TCP clients wait in the kernel's queue until a connection ends
//! (`failed_accepts`, and a log line once), and a new UDP flow replaces the one that has been idle
//! longest.
//!
//! # Cost
//! An idle connection takes about 1.6 KB beside the kernel's sockets, two descriptors, and no
//! processor time. A pipe takes 256 KiB of kernel memory while it holds bulk data, at most 256 pipes in
//! a process. Worker threads share the published snapshot of the set; each has counters of its own.
//!
//! One source address has about 28 000 ports for connections to a backend: for more connections to
//! one backend configure [more addresses](SourceAddress::Addresses).

mod accept_backoff;
mod address;
mod clock;
mod connection_table;
mod control;
mod counters;
mod descriptors;
mod drain_report;
mod errno;
mod error;
mod freebind;
#[cfg(target_os = "linux")]
#[cfg_attr(docsrs, doc(cfg(target_os = "linux")))]
pub mod handover;
mod limits;
pub mod proxy_protocol;
mod queue;
mod reasons;
mod record;
mod route;
mod running;
pub mod sni;
mod tcp;
#[cfg(target_os = "linux")]
mod udp;
mod worker_pool;

pub use self::connection_table::ConnectionInfo;
pub use self::counters::{RefusalCounters, TcpBackendCounters, TcpCounters, TimeoutCounters};
pub use self::descriptors::{
    DescriptorUsage, descriptor_usage, raise_descriptor_limit, set_descriptor_reserve,
};
pub use self::drain_report::DrainReport;
pub use self::error::ForwardError;
#[cfg(feature = "director")]
pub(crate) use self::freebind::BindOptions;
pub use self::limits::ConnectionRate;
pub use self::queue::QueueCounters;
pub use self::record::{
    ConnectionPhase, ConnectionRecord, RecordValue, Termination, TerminationReason,
};
pub use self::route::Route;
pub use self::running::RunningForwarder;
#[cfg(feature = "director")]
pub(crate) use self::tcp::TcpOptions;
pub use self::tcp::{Forwarder, ProxyHeaderOptions, SourceAddress, TcpHandle};
#[cfg(all(feature = "director", target_os = "linux"))]
pub(crate) use self::udp::UdpOptions;
#[cfg(target_os = "linux")]
pub use self::udp::{
    Coalesce, FlowEndCounters, FlowRecord, ShedCounters, UdpBackendCounters, UdpCounters,
    UdpForwarder, UdpHandle, UdpTraffic, UndeliveredCounters,
};
pub use self::worker_pool::WorkerPool;
#[cfg(feature = "director")]
pub(crate) use self::worker_pool::validate_workers;
pub use crate::histogram::DurationHistogram;
