//! A configuration made into a running director: virtual services over real servers, checked, with
//! virtual addresses that follow an election, and a standby that knows what the active one knows.
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
//! The file `examples/director.toml` of this crate says everything that a configuration can say.
//!
//! # From one configuration to another
//! [`Director::reload`] works out the difference of two configurations and carries out that, and
//! nothing else. First all is made ready that can fail; so a configuration that cannot be changes
//! nothing. Servers come, go and change in one publication of their service. Where a service is to be
//! carried in another way, another forwarder takes the same sockets, and connections stay with the
//! one that has them. The start is a reload from nothing.
//!
//! With `handover = "PATH"` the same is done from one process to the next: a director that is
//! [started](Director::start) while another runs takes its listeners, and the other one is told
//! ([`Director::succeeded`]). [`ListeningSockets::from_environment`] takes those of a service manager.
//!
//! # What is done by hand
//! [`Director::change`], [`add`](Director::add) and [`remove`](Director::remove), and the same over
//! the API, lie over the configuration. They outlive reloads, as an operator who has drained a server
//! wants it, until the file says something new of the same thing: another weight forgets the weight
//! that was set by hand; a server that leaves the file takes all with it.
//!
//! # The admin pages
//! | | |
//! |---|---|
//! | `/` | a status page |
//! | `/healthz` | `active` or `standby` |
//! | `/metrics` | for Prometheus |
//! | `/api/v1/...` | in JSON; `openapi.json` among it describes the others |
//!
//! On an address of this machine alone (loopback) they are for its programs: a request by another
//! host's name is refused, and so is a change from a page of another site. On any other address they
//! ask for a token. There is no TLS: where the network is not trusted, something that ends TLS stands
//! before them. They have one thread, which goes behind all others.
//!
//! # An active and a standby director
//! Run the same on two machines, with a `[vrrp]` table of each: whoever is master has the addresses
//! ([`crate::vrrp`] tells how that is decided, and what becomes of the addresses of a machine that
//! dies). Listeners are bound to them on both, before and after; health checks run on both, so that
//! the standby knows who is up from the first connection on.
//!
//! With a `[sync]` table the standby follows the active director, over a connection of TCP that is
//! encrypted, and authenticated by a key that both have (the Noise protocol, `NNpsk0`). It is told
//! everything when it joins, and what has changed since from then on:
//!
//! | what | how fresh | what the standby does with it |
//! |---|---|---|
//! | persistence | 0.25 s | keeps it, and follows it when it is active |
//! | weights and states set by hand | 1 s | sets them at once |
//! | health, ejections, slow starts | 1 s | takes them up when it becomes active; its own checks go first |
//! | counters | 1 s | adds them to its own, so that totals go on |
//!
//! What is not kept: **connections of TCP**. They end in the director's process and in its kernel;
//! when that dies, so do they, and no replication could save them. Clients connect anew, and
//! persistence brings them to the same servers. Flows of UDP begin anew too: services whose clients
//! must stay need persistence, or a rule that hashes. (The kernel's IPVS, which carries packets and
//! no connections, can hand those on.)

mod admin;
mod config;
mod diff;
mod error;
mod frontend;
mod handle;
mod handover;
mod history;
mod import;
mod metrics;
mod overrides;
mod reload;
mod service;
mod status;
mod sync;
mod vrrp;

pub use self::config::{
    DirectorConfig, DirectorConfigError, LogConfig, LogFormat, LogLevel, RealServer,
};
pub use self::error::{DirectorError, ServiceError};
pub use self::frontend::ListeningSockets;
pub use self::handle::Director;
pub use self::import::{ImportError, import};
pub use self::overrides::{AdminState, ServerChange};
pub use self::reload::ReloadSummary;
pub use self::status::{
    DirectorStatus, ServerStatus, ServerTotals, ServiceStatus, ServiceTotals, SyncStatus,
};
