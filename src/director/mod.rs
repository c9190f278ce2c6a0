//! A director made from a configuration: virtual services over real servers with health checks,
//! virtual addresses that an election assigns, and a standby that has the active director's state.
//!
//! ```no_run
//! use lvs::director::{DirectorConfig, Director};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = DirectorConfig::parse(
//!     r#"
//!     [[service]]
//!     name = "web"
//!     listen = "10.88.0.100:80"
//!     scheduler = "wlc"
//!     health = { type = "http", path = "/", interval = "1s" }
//!
//!     [[service.server]]
//!     address = "10.88.1.1:80"
//!
//!     [vrrp]
//!     interface = "eth0"
//!     virtual_router_id = 51
//!     advert_interval = "100ms"
//!     addresses = ["10.88.0.100/24"]
//!     "#,
//! )?;
//! let director = Director::start(config).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The file `examples/director.toml` of this crate shows every key of the configuration.
//!
//! # From one configuration to another
//! [`Director::reload`] applies the difference of two configurations, and touches nothing else. It
//! first validates the configuration and opens everything that the system may refuse: an impossible
//! configuration changes nothing. Then it applies part by part. Servers are added, removed and changed
//! in one publication of their service. Where options of the forwarder change, a new forwarder takes
//! over the same sockets, and connections stay with the forwarder that has them. A start is a reload of
//! a director in which nothing runs. A part that cannot be applied after all is logged, is in the
//! [`ReloadSummary`] and in the status, and the next reload tries it again.
//!
//! With `handover = "PATH"` the listeners outlive the process: a director that is
//! [started](Director::start) while another runs takes its listeners over, and the other one learns of
//! it from [`Director::wait_for_successor`]. [`ListeningSockets::from_environment`] takes the sockets
//! of a service manager.
//!
//! # Changes by operators
//! [`Director::change_server`], [`add_server`](Director::add_server),
//! [`remove_server`](Director::remove_server), and the same calls of the API, override the
//! configuration. They outlive reloads, as an operator who drains a server expects, until the
//! configuration says something new of the same thing: another weight in the file replaces the
//! operator's weight; a server that is removed from the file loses all overrides.
//!
//! # The admin server
//! | path | content |
//! |---|---|
//! | `/` | a status page |
//! | `/healthz` | `active` or `standby` |
//! | `/metrics` | metrics for Prometheus |
//! | `/api/v1/...` | JSON; `/api/v1/openapi.json` describes the calls |
//!
//! On a loopback address it serves programs of this machine: it refuses a request with another host's
//! name, and a change from a page of another site. On any other address it needs a token. It has no
//! TLS: in a network that is not trusted, put a proxy that terminates TLS in front of it. It runs in
//! one thread of the lowest priority.
//!
//! # An active and a standby director
//! Run the same program on two machines, each with a `[vrrp]` table: the master has the addresses
//! ([`crate::vrrp`] describes the election, and what becomes of the addresses of a machine that dies).
//! Both directors bind listeners to the addresses, whether they have them or not; both run health
//! checks, so that the standby knows which servers are up from the first connection on.
//!
//! With a `[sync]` table the standby follows the active director over a TCP connection that is
//! encrypted, and authenticated by a key that both have (the Noise protocol, `NNpsk0`). It receives the
//! whole state when it connects, and changes from then on:
//!
//! | state | sent every | what the standby does with it |
//! |---|---|---|
//! | persistence | 0.25 s | adds it to its own table, which it uses when it is active |
//! | weights and states set by operators | 1 s | applies them at once |
//! | health, ejections, slow starts | 1 s | adopts them when it becomes active; its own checks take precedence |
//! | counters | 1 s | adds them to its own, so that totals continue |
//!
//! **TCP connections are not replicated.** They end in the director's process and kernel, and die with
//! them. Clients connect again, and persistence takes them to the same servers. UDP flows start again
//! too: services whose clients must stay on their server need persistence, or a scheduler that hashes.
//! (The kernel's IPVS forwards packets and terminates no connection; it can replicate connections.)

mod admin;
mod applied;
mod command;
mod config;
mod controller;
mod counters;
mod diff;
mod error;
mod frontend;
mod handle;
mod handover;
mod history;
mod import;
mod metrics;
mod overrides;
mod registry;
mod reload;
mod role;
mod service;
mod sockets;
mod status;
mod sync;
mod time;
mod vrrp;

pub use self::applied::{PartFailure, PartStatus, ReloadPart, ReloadSummary};
pub use self::config::{
    DirectorConfig, DirectorConfigError, LogConfig, LogFormat, LogLevel, RealServer,
};
pub use self::counters::{ServerTotals, ServiceTotals};
pub use self::error::{DirectorError, ServiceError};
pub use self::handle::Director;
pub use self::import::{ImportError, import};
pub use self::overrides::ServerChange;
pub use self::sockets::ListeningSockets;
pub use self::status::{DirectorStatus, ServerStatus, ServiceStatus};
pub use self::sync::SyncStatus;
pub use crate::backend::BackendAdminState;
