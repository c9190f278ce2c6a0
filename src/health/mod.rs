//! Health: active checks, outlier ejection, and the monitor that writes their results into a set.
//!
//! A [`Monitor`] watches each set by a [`HealthPlan`]: it runs the [`TimedCheck`]s of the plan,
//! receives every lease that fails, [ejects](EjectionPolicy) backends that fail too often, and sets
//! the resulting health in the set. It reports changes as [`HealthEvent`]s.
//!
//! # Checks
//! A [`Check`] makes one request to one backend; a check of your own is a type with one async method.
//! Built in:
//!
//! | check | passes if | feature |
//! |---|---|---|
//! | [`TcpCheck`] | the backend accepts a connection, and answers given bytes with expected bytes | |
//! | [`HttpCheck`] | it answers a request with the expected status and body | `health-http2`, `health-tls` for those |
//! | `TlsCheck` | it completes a handshake with a valid certificate | `health-tls` |
//! | `GrpcCheck` | its health service reports `SERVING` | `health-grpc` |
//! | `DnsCheck` | it answers a query, with the expected answer | `health-dns` |
//! | [`SmtpCheck`] | it greets as a mail server | |
//! | [`RedisCheck`], [`PostgresCheck`], [`MysqlCheck`] | it accepts sessions | |
//! | [`UdpCheck`] | it answers a datagram, or at least no ICMP error arrives | |
//! | [`IcmpCheck`] | it answers an echo request | |
//! | [`AgentCheck`] | its agent, with HAProxy's protocol, reports it up; the agent also sets weight, limit and drain | |
//! | [`CommandCheck`] | a program exits with 0, as keepalived's `MISC_CHECK` | |
//! | [`FileCheck`] | a file exists, and by the number in it, as keepalived's `FILE_CHECK` | |
//!
//! Every check reads a bounded answer and ends within its timeout, and every failure states what was
//! expected and what was received. A check that cannot run (a shortage of descriptors or ports, a
//! program that does not exist, a source address that this machine does not have) or that panics does
//! not count against a backend that was checked before: it is an
//! [event](HealthEventKind::LocalFailure) with the reason, which also shows as the
//! [reason](crate::backend::BackendStatus::reason) of the backend's state until the check runs again. A
//! backend whose check has never run goes down by it: [`InitialHealth`].
//!
//! # How a backend leaves and returns to service
//! | cause | [`BackendState`](crate::backend::BackendState) | returns by |
//! |---|---|---|
//! | [`fall`](TimedCheck::fall) failed checks in a row | `Down` | [`rise`](TimedCheck::rise) passed checks in a row, then slow start |
//! | its own traffic: [`EjectionPolicy`] | `Ejected` | the end of the ejection time, then one trial lease, then a ramp |
//! | an agent, a command, a file | as the weight, limit or state that it asks for | the same |
//!
//! A backend that stops answering is down within
//! [`fall * interval + timeout`](TimedCheck::max_detection_time). Until then a forwarder connects to
//! another backend if a connect fails.
//!
//! # Too few healthy backends
//! The set decides: [`FailMode`](crate::backend::FailMode) uses unhealthy backends when too few are
//! healthy, [`Quorum`](crate::backend::Quorum) stops the service when too little weight is healthy.
//!
//! # What a monitor needs of its runtime
//! A tokio runtime of either flavor, with I/O and time; [`Monitor::run`] refuses another by
//! [`RuntimeError`](crate::RuntimeError). Checks are tasks of it: a thread that is blocked for longer than
//! a timeout makes checks of a runtime with one thread fail.
//!
//! # Changes and restarts
//! Health outlives a change of weight, target or scheduler. [`WatchHandle::export`] and
//! [`WatchHandle::restore`] carry it over a restart, in any serde format.

mod check;
mod check_counters;
mod check_ports;
mod checks;
mod ejector_driver;
mod events;
mod monitor;
mod monitor_core;
pub mod outlier;
mod plan;
mod proxy_header;
mod running_checks;
mod saved;
mod set_observer;
mod shared_probe;
mod timetable;
mod verdict;
#[cfg_attr(not(feature = "director"), allow(dead_code, reason = "no engine gives marks there"))]
mod virtual_path;
mod watched_service;
mod watched_set;

pub use self::check::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
pub use self::check_counters::CheckCounters;
pub use self::checks::*;
pub use self::events::{HealthEvent, HealthEventKind, HealthEvents};
#[cfg(feature = "director")]
pub(crate) use self::monitor::DEFAULT_MAX_IN_FLIGHT;
pub use self::monitor::{Monitor, MonitorCounters, WatchHandle};
pub use self::outlier::detectors::{
    FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};
pub use self::outlier::policy::{EjectionPolicy, EjectionPolicyBuilder};
pub use self::plan::{HealthPlan, HealthPlanError, InitialHealth, TimedCheck};
pub use self::proxy_header::CheckProxyHeader;
pub use self::saved::SavedHealth;
#[cfg(feature = "director")]
pub(crate) use self::virtual_path::{CheckPath, CheckPathFinder};
