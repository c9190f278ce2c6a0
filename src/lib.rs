//! The Linux Virtual Server for tower and tokio.
//!
//! `lvs` chooses a server for every connection or request. It knows the fourteen schedulers of the
//! kernel's IPVS, which decide here as they do there, and those of user space beside them; it keeps
//! the set they choose from, with weights, health, limits, slow start and drain; it checks who is up,
//! and follows those who come and go; and it forwards TCP connections and UDP flows to what was
//! chosen.
//!
//! It is no HTTP proxy: of what it forwards it reads PROXY headers and the server name of a TLS
//! ClientHello at most. Health is what a [monitor](health::Monitor)
//! finds out, or what your program [says](BackendSet::set_health) it is. The README says what comes
//! next.
//!
//! # The layers
//! ```text
//!      clients
//!         |
//! +-------v----------------------------------------------------+
//! | forward    Forwarder, UdpForwarder: carry TCP and UDP      |  tokio
//! | tower      Balance, ReadyFirst: carry requests             |
//! +------------------------------------------------------------+
//! | balancer   Balancer: a pick is a Lease, +1 until dropped   |  or your program
//! |            reads one published plane (Snapshot, Picker)    |
//! +------------------------------------------------------------+
//! | scheduler  Scheduler: the rule; compiled for each change   |
//! |            of the set into a Picker                        |
//! +------------------------------------------------------------+
//! | backend    BackendSet: weight, health, limits, drain       |  <- health, discovery,
//! |            and what becomes of it when too few are well    |     your program
//! +------------------------------------------------------------+
//! ```
//! Each part uses those below it only. [`backend`], [`scheduler`] and [`balancer`] know no runtime
//! and read no clock: time is an argument.
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
//! let balancer = Balancer::new(&set, RoundRobin)?;
//!
//! let client: SocketAddr = "192.0.2.7:50123".parse()?;
//! let lease = balancer.pick(&Flow::from(client))?;
//! println!("{client} goes to {}", lease.target());
//! lease.complete(Outcome::Ok);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! Which scheduler to choose when is a table in the README; [`Scheduler`] shows how to write one.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `director` | | a configuration made into a running director, with a standby |
//! | `discovery` | yes | members from a list, a file, a channel |
//! | `discovery-dns` | | members from DNS: A, AAAA, SRV |
//! | `discovery-tower` | | members from tower's `Discover`; with `tower`, balancers over connections |
//! | `forward` | yes | the TCP and UDP forwarders |
//! | `health` | yes | the monitor, outlier ejection, and checks by TCP, HTTP/1.1, UDP, ICMP, SMTP, Redis, PostgreSQL, MySQL, agent, command and file |
//! | `health-dns` | | the DNS check |
//! | `health-grpc` | | the gRPC check |
//! | `health-http2` | | HTTP/2 for the HTTP check |
//! | `health-tls` | | the TLS check, and TLS below HTTP and gRPC |
//! | `tower` | yes | [`tower`]: any scheduler as a tower `Service` |
//! | `tower-http` | | for it: keys, outcomes and leases that know HTTP |
//! | `vrrp` | | virtual addresses that follow an election: VRRP |
//! | `full` | | every feature |
//!
//! # Versions and platforms
//! Rust 1.95 or later; a raise of that is a minor version. Linux on x86-64 is what is tested.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
pub mod balancer;
#[cfg(feature = "director")]
#[cfg_attr(docsrs, doc(cfg(feature = "director")))]
pub mod director;
#[cfg(feature = "discovery")]
#[cfg_attr(docsrs, doc(cfg(feature = "discovery")))]
pub mod discovery;
#[cfg(feature = "forward")]
#[cfg_attr(docsrs, doc(cfg(feature = "forward")))]
pub mod forward;
#[cfg(feature = "health")]
#[cfg_attr(docsrs, doc(cfg(feature = "health")))]
pub mod health;
#[cfg(any(feature = "forward", feature = "tower", feature = "vrrp"))]
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "what records is for Linux"))]
mod histogram;
pub mod scheduler;
mod sync;
#[cfg(any(feature = "forward", feature = "vrrp"))]
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
pub use self::scheduler::{Flow, Scheduler};

/// Compiles the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
