//! The Linux Virtual Server for tower and tokio.
//!
//! `lvs` chooses a backend for every connection or request, checks which backends are up, forwards TCP
//! connections and UDP flows, and keeps the service up when the balancer itself dies. Its schedulers
//! are the fourteen of the kernel's IPVS, which decide here exactly as in the kernel, those of user
//! space, and your own.
//!
//! It is no HTTP proxy: of what it forwards it reads PROXY headers and the server name of a TLS
//! ClientHello at most.
//!
//! # Where to begin
//! | you want to | begin with |
//! |---|---|
//! | choose a backend in your own program | [`BackendSet`], [`Balancer`], [`scheduler`] |
//! | know which backends are up | [`health::Monitor`], or call [`BackendSet::set_health`] |
//! | follow members that come and go | [`discovery::Feed`] |
//! | forward TCP or UDP | [`forward::Forwarder`], [`forward::UdpForwarder`] |
//! | balance a tower `Service` | [`tower::Balance`] |
//! | share virtual addresses between two machines | [`vrrp::Vrrp`] |
//! | run all of it from a configuration | [`director::Director`] |
//! | read and change the kernel's IPVS | [`ipvs::IpvsClient`] |
//! | read what happened | [`events::Events`] |
//! | look a word up | [`glossary`] |
//!
//! # The smallest program
//! ```
//! use std::net::SocketAddr;
//! use lvs::scheduler::RoundRobin;
//! use lvs::{BackendSet, Balancer, Flow, Outcome};
//!
//! let set = BackendSet::<SocketAddr>::new();
//! set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
//! set.insert("10.0.0.2:80".parse::<SocketAddr>()?)?;
//! let balancer = Balancer::new(&set, RoundRobin::new())?;
//!
//! let client: SocketAddr = "192.0.2.7:50123".parse()?;
//! let lease = balancer.pick(&Flow::from(client))?;
//! println!("{client} goes to {}", lease.target());
//! lease.complete(Outcome::Ok);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! The README has a table of which scheduler to choose when; [`Scheduler`] shows how to write one.
//!
//! # The layers
//! ```text
//!      clients
//!         |
//! +-------v----------------------------------------------------+
//! | forward    Forwarder, UdpForwarder: proxy TCP and UDP      |  tokio
//! | tower      Balance, ReadyFirst: a Service over instances   |
//! +------------------------------------------------------------+
//! | balancer   Balancer: a pick returns a Lease, which counts  |  or your program
//! |            +1 at its backend until it is dropped           |
//! +------------------------------------------------------------+
//! | scheduler  Scheduler: the rule, compiled into a Picker for |
//! |            each change of the set                          |
//! +------------------------------------------------------------+
//! | backend    BackendSet: weight, health, limits, drain       |  <- health, discovery,
//! |                                                            |     your program
//! +------------------------------------------------------------+
//! ```
//! Each part uses those that its row names, and no files import each other in a circle; a test
//! compares the sources with this table. [`backend`], [`scheduler`] and [`balancer`] know no runtime
//! and read no clock: time is an argument.
//!
#![doc = include_str!("../docs/layers.md")]
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `announce` | | [`announce`]: addresses that a routing daemon announces (anycast); for Linux only |
//! | `cli` | | the program `lvs`; not in `full` |
//! | `director` | | a director from a configuration, with a standby |
//! | `discovery` | yes | members from a list, a file, a channel |
//! | `discovery-dns` | | members from DNS: A, AAAA, SRV |
//! | `discovery-tower` | | members from tower's `Discover`; with `tower`, balancers over connections |
//! | `forward` | yes | the TCP and UDP forwarders |
//! | `health` | yes | the monitor, outlier ejection, and checks by TCP, HTTP/1.1, UDP, ICMP, SMTP, Redis, PostgreSQL, MySQL, agent, command and file |
//! | `serde` | | names, states, counters and records as values of serde; `health` and `vrrp` include it |
//! | `health-dns` | | the DNS check |
//! | `health-grpc` | | the gRPC check |
//! | `health-http2` | | HTTP/2 for the HTTP check |
//! | `health-tls` | | the TLS check, and TLS below HTTP and gRPC |
//! | `ipvs` | | [`ipvs`]: the kernel's IPVS by netlink; for Linux only |
//! | `packet` | | [`packet`]: an engine in the kernel that any scheduler decides for; for Linux only |
//! | `metrics` | | [`metrics`]: sets, checks and forwarders in the program's own recorder, under the director's names |
//! | `tower` | yes | [`tower`]: any scheduler as a tower `Service` |
//! | `tower-http` | | for `tower`: keys, outcomes and leases for HTTP |
//! | `vrrp` | | virtual addresses by VRRP |
//! | `full` | | every feature but `cli` |
//!
//! # Versions and platforms
//! Rust 1.89 or later; a raise of that is a minor version. Linux on x86-64 is what is tested.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(feature = "announce", target_os = "linux"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "announce", target_os = "linux"))))]
pub mod announce;
pub mod backend;
pub mod balancer;
#[cfg(feature = "director")]
#[cfg_attr(docsrs, doc(cfg(feature = "director")))]
pub mod director;
#[cfg(feature = "discovery")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
pub mod discovery;
#[cfg(any(feature = "ipvs", feature = "packet"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "ipvs", feature = "packet"))))]
pub mod engine;
#[cfg(any(feature = "announce", feature = "health", feature = "vrrp"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "announce", feature = "health", feature = "vrrp"))))]
pub mod events;
#[cfg(any(
    feature = "discovery",
    feature = "forward",
    feature = "health",
    feature = "packet",
    feature = "vrrp"
))]
mod excerpt;
#[cfg(feature = "forward")]
#[cfg_attr(docsrs, doc(cfg(feature = "forward")))]
pub mod forward;
#[cfg(feature = "health")]
#[cfg_attr(docsrs, doc(cfg(feature = "health")))]
pub mod health;
#[cfg(any(feature = "forward", feature = "tower", feature = "vrrp"))]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what records is for Linux"))]
mod histogram;
#[cfg(all(feature = "ipvs", target_os = "linux"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "ipvs", target_os = "linux"))))]
pub mod ipvs;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub mod metrics;
#[cfg(all(feature = "packet", target_os = "linux"))]
#[cfg_attr(docsrs, doc(cfg(all(feature = "packet", target_os = "linux"))))]
pub mod packet;
#[cfg(any(feature = "forward", feature = "health", feature = "packet", feature = "vrrp"))]
mod panics;
#[cfg(any(feature = "health", feature = "vrrp"))]
mod program_user;
#[cfg(feature = "discovery")]
mod regular_file;
#[cfg(all(target_os = "linux", any(feature = "announce", feature = "packet", feature = "vrrp")))]
mod rtnetlink;
#[cfg(any(feature = "discovery", feature = "health"))]
mod runtime;
pub mod scheduler;
mod setting;
mod sync;
#[cfg(any(
    feature = "announce",
    feature = "forward",
    feature = "health",
    feature = "packet",
    feature = "vrrp"
))]
mod sys;
#[cfg(feature = "tower")]
#[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
pub mod tower;
#[cfg(feature = "vrrp")]
#[cfg_attr(docsrs, doc(cfg(feature = "vrrp")))]
pub mod vrrp;

pub use self::backend::{
    Backend, BackendId, BackendSet, Health, Limits, Load, Outcome, SetError, SlowStart, Spec,
};
pub use self::balancer::{Balancer, Lease, PickError};
#[cfg(any(feature = "forward", feature = "tower", feature = "vrrp"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "forward", feature = "tower", feature = "vrrp"))))]
pub use self::histogram::DurationHistogram;
#[cfg(any(feature = "health", feature = "vrrp"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "health", feature = "vrrp"))))]
pub use self::program_user::ProgramUser;
#[cfg(any(feature = "discovery", feature = "health"))]
#[cfg_attr(docsrs, doc(cfg(any(feature = "discovery", feature = "health"))))]
pub use self::runtime::RuntimeError;
pub use self::scheduler::{Flow, Scheduler};
pub use self::setting::SettingError;

#[doc = include_str!("../docs/glossary.md")]
pub mod glossary {}

/// Compiles the programs of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
