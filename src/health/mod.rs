//! Health: active checks, and what keeps the set true to what is really up.
//!
//! A [`Check`] asks one backend one question. The built-in ones, a file each:
//!
//! | check | asks |
//! |---|---|
//! | [`TcpCheck`] | does it take a connection; optionally: does it answer these bytes with those |

mod check;
mod checks;
pub mod outlier;

pub use self::check::{Check, Failure, FailureKind, Probe, Report};
pub use self::checks::*;
pub use self::outlier::{
    Accusation, Action, Cause, CauseKind, Decision, Ejection, EjectionCounters, EjectionError,
    Ejector, FailurePercentage, LatencyFactor, Phase, Sample, SavedEjection, SavedPhase, Standing,
    SuccessRate,
};
