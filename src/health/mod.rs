//! Health: active checks, and what keeps the set true to what is really up.
//!
//! A [`Monitor`] watches sets: for each member it makes the checks of a [`Plan`], and what they come
//! to it writes into the set. A [`Check`] asks one backend one question. The built-in ones, a file
//! each:
//!
//! | check | asks |
//! |---|---|
//! | [`TcpCheck`] | does it take a connection; optionally: does it answer these bytes with those |
//! | [`UdpCheck`] | is the port open; optionally: does the right reply come |
//! | [`IcmpCheck`] | does the host answer an echo |
//! | `DnsCheck` | does a name server answer, and answer it right (feature `health-dns`) |
//! | [`CommandCheck`] | a program of yours, by its exit code |
//! | [`FileCheck`] | what a file says, or whether it exists |

mod check;
mod checks;
mod engine;
mod events;
mod monitor;
pub mod outlier;
mod plan;
mod room;
mod saved;
mod service;
mod timetable;
mod verdict;

pub use self::check::{Check, Failure, FailureKind, Probe, Report};
pub use self::checks::*;
pub use self::events::{Event, EventKind, Events, Missed};
pub use self::monitor::{Monitor, MonitorCounters, Watch};
pub use self::outlier::{
    Cause, CauseKind, Ejection, EjectionCounters, EjectionError, FailurePercentage, LatencyFactor,
    SuccessRate,
};
pub use self::plan::{Checks, Plan, PlanError};
pub use self::saved::Saved;
