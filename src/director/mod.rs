//! A director made from a configuration: virtual services over real servers with health checks,
//! virtual addresses that an election assigns, and a standby that has the active director's state.
//!
//! [`DirectorConfig::builder`] describes a director in Rust, and [`DirectorConfig::load`] reads it from a
//! TOML file; both have the same keys and checks. A director on free ports, with a scheduler, a check and
//! an access log of the program:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::time::Duration;
//!
//! use lvs::director::{
//!     AdminConfig, CheckConfig, Director, DirectorConfig, EjectionConfig, RealServer, SchedulerConfig,
//!     ServiceConfig,
//! };
//! # use lvs::health::{Check, CheckContext, CheckFailure, CheckReport};
//! # #[derive(Debug)]
//! # struct LicenseCheck;
//! # impl Check for LicenseCheck {
//! #     async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
//! #         context.connect().await.map(|_| CheckReport::up())
//! #     }
//! # }
//! # use lvs::scheduler::RoundRobin as MyScheduler;
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
//! let second = Duration::from_secs(1);
//!
//! let web = ServiceConfig::tcp("web")
//!     .listen(any_port)
//!     .scheduler("wlc")
//!     .health(CheckConfig::http("/").interval(second).rise(2).fall(3))
//!     .ejection(EjectionConfig::builder().consecutive_failures(3))
//!     .server(RealServer::builder("127.0.0.1:8081".parse()?).weight(3))
//!     .server(RealServer::builder("127.0.0.1:8082".parse()?).max_connections(1000));
//! let mail = ServiceConfig::tcp("mail")
//!     .listen(any_port)
//!     .scheduler(SchedulerConfig::custom(MyScheduler::new()))
//!     .health(CheckConfig::custom(LicenseCheck).interval(second))
//!     .on_end(|record| println!("{record}"));
//! let config = DirectorConfig::builder()
//!     .workers(2)
//!     .admin(AdminConfig::builder(any_port))
//!     .service(web.clone())
//!     .service(mail.clone())
//!     .build()?;
//!
//! let director = Director::start(config).await?;
//! println!("web listens on {:?}", director.status().services[0].listen);
//!
//! // One more server. Nothing else is touched: clones have the same check, scheduler and callback.
//! let next = DirectorConfig::builder()
//!     .workers(2)
//!     .admin(AdminConfig::builder(any_port))
//!     .service(web.server("127.0.0.1:8083".parse::<SocketAddr>()?))
//!     .service(mail)
//!     .build()?;
//! let summary = director.reload(next).await?;
//! assert_eq!(summary.to_string(), "service web: updated servers");
//!
//! // Dropped, it closes its sockets and cuts its connections; `stop` waits for them.
//! director.stop(second).await;
//! # Ok(())
//! # }
//! ```
//!
//! One of an active/standby pair has a virtual router, and is otherwise the same:
//!
//! ```
//! # use std::time::Duration;
//! # use lvs::director::{DirectorConfig, ServiceConfig};
//! use lvs::director::VrrpConfig;
//!
//! let router = VrrpConfig::builder("eth0", 51)
//!     .priority(150)
//!     .advert_interval(Duration::from_millis(100))
//!     .addresses(["10.88.0.100/24".parse()?]);
//! let builder = DirectorConfig::builder().vrrp(router);
//! # let service = ServiceConfig::tcp("web").listen(std::net::SocketAddr::from(([10, 88, 0, 100], 80)));
//! # builder.service(service).build()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same keys in TOML are `DirectorConfig::load("director.toml")?`, or for a text:
//!
//! ```
//! use lvs::director::DirectorConfig;
//!
//! let config = DirectorConfig::parse(
//!     r#"
//!     [[service]]
//!     name = "web"
//!     listen = "10.88.0.100:80"
//!     health = { type = "http", path = "/", interval = "1s" }
//!
//!     [[service.server]]
//!     address = "10.88.1.1:80"
//!     weight = 3
//!     "#,
//! )?;
//! # Ok::<(), lvs::director::DirectorConfigError>(())
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
//! operator's weight; a server that is removed from the file loses all overrides. The log and the
//! [status](ServerStatus::changed) say who made a change. Changes are passed on from the active director
//! to its standby, and not the other way: a change at a standby stays there.
//!
//! # Events
//! [`Director::events`] is a stream of what happens: health checks and ejections, the election, reloads,
//! and changes by operators with the way by which they came. The last 256 are in the API, at
//! `/api/v1/events`.
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
//! name, and a change from a page of another site. On any other address it needs a token. Clients that
//! hold connections keep nobody out: a new one takes the place of that whose last request is the longest
//! ago. It has no
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
//! | flows of the [packet engine](crate::packet), when they are half a second old, and when they end | 0.2 s | keeps them, with leases, and carries them on when it is active |
//!
//! **TCP connections of the forwarder are not replicated.** They end in the director's process and kernel, and die
//! with them. Clients connect again, and persistence takes them to the same servers. UDP flows start again
//! too: services whose clients must stay on their server need persistence, or a scheduler that hashes.
//! The engines in the kernel forward packets and terminate no connection: those of `packet` go on at the other
//! director, and those of `ipvs` if the kernels tell each other of them (`[ipvs] sync`).

mod admin;
mod announce;
mod applied;
mod check_answers;
mod check_paths;
mod command;
mod config;
mod connection_log;
mod controller;
mod counters;
mod descriptors;
mod diff;
mod engines;
mod error;
mod event_log;
mod events;
mod frontend;
mod handle;
mod handover;
mod history;
mod import;
mod metrics;
mod metrics_histogram;
mod notify;
mod overrides;
mod overview;
mod packet_metrics;
mod predecessor;
#[cfg(target_os = "linux")]
mod process_metrics;
mod registry;
mod reload;
mod role;
mod service;
mod sockets;
mod state_ages;
mod state_changes;
mod status;
mod supervisor;
mod sync;
#[cfg(test)]
mod testing;
mod time;
mod vrrp;

pub use self::applied::{PartFailure, PartStatus, ReloadPart, ReloadSummary};
pub use self::config::{
    AddressAnnounceConfig, AddressAnnounceConfigBuilder, AdminConfig, AdminConfigBuilder,
    AnnounceConfig, AnnounceConfigBuilder, CheckConfig, CheckConfigBuilder, CheckProxyConfig,
    CheckTlsConfig, CheckTlsConfigBuilder, CodeRanges, DirectorConfig, DirectorConfigBuilder,
    DirectorConfigError, DiscoveryConfig, DiscoveryConfigBuilder, DurationOrNever, EjectionConfig,
    EjectionConfigBuilder, EngineKind, FailurePercentageConfig, FailurePercentageConfigBuilder,
    HexSecret, IpvsConfig, IpvsConfigBuilder, IpvsSyncConfig, IpvsSyncConfigBuilder,
    LatencyFactorConfig, LatencyFactorConfigBuilder, ListenAddress, LogConfig, LogConfigBuilder,
    LogFormat, LogLevel, NotifyCommandConfig, NotifyCommandConfigBuilder, NotifyCommandList,
    PacketConfig, PacketConfigBuilder, PersistenceConfig, PersistenceConfigBuilder, QuorumConfig,
    QuorumConfigBuilder, RealServer, RealServerBuilder, RedisRoleConfig, SchedulerConfig,
    SecretString, ServerMethod, ServiceConfig, ServiceConfigBuilder, ServiceProtocol,
    SlowStartConfig, SlowStartConfigBuilder, SourceAddressConfig, SuccessRateConfig,
    SuccessRateConfigBuilder, SyncConfig, SyncConfigBuilder, TcpConfig, TcpConfigBuilder,
    TcpQueueConfig, TcpQueueConfigBuilder, TlsTrustConfig, TrackConfig, TrackConfigBuilder,
    TunnelChecksumConfig, TunnelConfig, TunnelConfigBuilder, TunnelEncapsulation, UdpConfig,
    UdpConfigBuilder, VirtualRouteConfig, VirtualRouteConfigBuilder, VrrpConfig, VrrpConfigBuilder,
    WithoutQuorumConfig, XdpModeConfig,
};
pub use self::error::{DirectorError, ServiceError};
pub use self::events::{
    AnnounceModeEvent, ChangeOrigin, DirectorEvent, DirectorEvents, OperatorEvent,
    OperatorEventKind, ReloadEvent, TableEvent,
};
pub use self::handle::Director;
pub use self::import::{ImportError, Importer, import};
pub use self::overrides::{ChangeStamp, ServerChange};
pub use self::sockets::ListeningSockets;
pub use self::state_ages::ServiceState;
pub use self::status::{DirectorStatus, ServerStatus, ServiceStatus};
pub use self::sync::SyncStatus;
pub use crate::backend::BackendAdminState;
pub use crate::metrics::{ServerTotals, ServiceTotals};
