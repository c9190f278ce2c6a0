//! Health: active checks, outlier ejection, and what keeps a set true to what is really up.
//!
//! A [`Monitor`] watches sets by a [`HealthPlan`] each: it makes the plan's [`TimedCheck`], it hears of every
//! lease that fails and [ejects](EjectionPolicy) who fails too often, and what that comes to it writes
//! into the set. What happens it tells as [`HealthEvent`]s.
//!
//! # Checks
//! A [`Check`] is one question to one backend; yours is a type with one async method. Built in:
//!
//! | check | asks | feature |
//! |---|---|---|
//! | [`TcpCheck`] | does it take a connection, and answer these bytes with those | |
//! | [`HttpCheck`] | does it answer a request with this status and body | `health-http2`, `health-tls` for those |
//! | `TlsCheck` | does it make a handshake, with a certificate that holds | `health-tls` |
//! | `GrpcCheck` | does its health service say `SERVING` | `health-grpc` |
//! | `DnsCheck` | does it answer a question, with this answer | `health-dns` |
//! | [`SmtpCheck`] | does it greet as a mail server | |
//! | [`RedisCheck`], [`PostgresCheck`], [`MysqlCheck`] | does it take sessions | |
//! | [`UdpCheck`] | does a datagram come back, or at least no ICMP error | |
//! | [`IcmpCheck`] | does it answer an echo request | |
//! | [`AgentCheck`] | what HAProxy's agent beside it says: up, weight, limit, drain | |
//! | [`CommandCheck`] | does a program end with 0, as keepalived's `MISC_CHECK` | |
//! | [`FileCheck`] | is a file there, what number is in it, as keepalived's `FILE_CHECK` | |
//!
//! Every answer is read up to a bound, every check ends within its timeout, and every failure says
//! what was awaited and what came instead. What this machine lacks (descriptors, ports) is held
//! against nobody.
//!
//! # When a backend is out
//! | what says so | [`State`](crate::backend::State) | comes back by |
//! |---|---|---|
//! | [`fall`](TimedCheck::fall) checks in a row | `Down` | [`rise`](TimedCheck::rise) checks in a row, then slow start |
//! | its own traffic: [`EjectionPolicy`] | `Ejected` | time, then one piece of work on trial, then a ramp |
//! | an agent, a command, a file | the weight, limit or state it asks for | the same |
//!
//! A backend that stops answering is known to be down within
//! [`fall * interval + timeout`](TimedCheck::detects_within). What is between its death and that moment
//! a forwarder makes good by connecting elsewhere, where there was nobody to take the connection.
//!
//! # When too many are out
//! What a set does then is its own affair, and chosen there:
//! [`FailMode`](crate::backend::FailMode) uses the sick rather than nobody,
//! [`Quorum`](crate::backend::Quorum) serves not at all rather than on too few.
//!
//! # What stays
//! Nothing of this is lost by a change of weight, target or rule. [`WatchHandle::export`] and
//! [`WatchHandle::restore`] carry it over a restart, by any serde format.

mod check;
mod checks;
mod events;
mod monitor;
mod monitor_core;
pub mod outlier;
mod plan;
mod saved;
mod timetable;
mod verdict;
mod watched_service;
mod watched_set;

pub use self::check::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
pub use self::checks::*;
pub use self::events::{HealthEvent, HealthEventKind, HealthEvents, MissedEvents};
pub use self::monitor::{Monitor, MonitorCounters, WatchHandle};
pub use self::outlier::{
    EjectionCounters, EjectionPolicy, EjectionPolicyError, EjectionReason, EjectionReasonKind,
    FailurePercentageDetector, LatencyDetector, SuccessRateDetector,
};
pub use self::plan::{HealthPlan, HealthPlanError, TimedCheck};
pub use self::saved::SavedHealth;
