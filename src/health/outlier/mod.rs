//! Outlier ejection: health as real traffic sees it.
//!
//! A backend that answers its checks and fails its requests is put out for a while, tried with one
//! piece of work, and let back in by and by. [`EjectionPolicy`] has the rules, [`Ejector`] is the machine;
//! it knows no runtime, reads no clock and touches no set. Whoever runs it feeds it
//! [samples](OutlierSample), [accusations](StreakReport) and time, and carries out its [decisions](EjectionDecision).
//!
//! # Detectors
//! | detector | ejects | when | default | whose |
//! |---|---|---|---|---|
//! | [`consecutive_failures`](EjectionPolicy::consecutive_failures) | after so many failures of any kind in a row | at once | 5 | Envoy, Finagle: 5; HAProxy's `observe`: 10 |
//! | [`consecutive_connect_failures`](EjectionPolicy::consecutive_connect_failures) | after so many connects in a row that failed or timed out | at once | 3 | HAProxy's `fall`: 3; Envoy: 5; nginx, Finagle: 1 |
//! | [`failure_percentage`](EjectionPolicy::failure_percentage) | at this share of failures, where 5 members had 50 requests | in sweeps | 85 % | Envoy, gRPC (A50) |
//! | [`success_rate`](EjectionPolicy::success_rate) | below the mean by so many standard deviations, where 5 members had 100 requests | in sweeps | 1.9, and 5 points | Envoy, gRPC: 1.9; the points are ours |
//! | [`latency`](EjectionPolicy::latency) | above so many times the median of the others, where 5 members had 100 answers | in sweeps | off | nobody publishes one |
//!
//! Each can be switched off. Sweeps are 10 s apart. A failure is an application error, a failed
//! connect or a timeout; what was cancelled counts neither way.
//!
//! # How long
//! The first ejection takes the base time of 30 s, each further one in a row 30 s more, 300 s at the
//! most: 30, 60, 90 ... 300, as in Envoy and gRPC. "In a row" is a multiplier that grows by one with
//! each ejection, up to the one that reaches the longest time, and shrinks by one with each sweep in
//! which the member is in and no outlier.
//!
//! Then the member is on probation, as Finagle does it: it is given one piece of work. If that
//! succeeds the member returns, by a [ramp](EjectionPolicy::ramp) of its own; if not, it is out
//! again, for the next longer time. Envoy gives it its whole share back at once, and if it is still
//! broken five more requests pay for it.
//!
//! # How many at most
//! A tenth of the members that could serve (enabled, and up by their checks), rounded down, but one
//! at least; those on trial count as out. And never the last one that is left: bad answers from one
//! server are better than none, and with nobody to compare it with, nothing says that the fault is
//! its own.
//!
//! | members that could serve | 1 | 2 | 3 to 19 | 20 | 100 |
//! |---|---|---|---|---|---|
//! | out at most, at 10 % | 0 | 1 | 1 | 2 | 10 |
//!
//! The cap is asked at each ejection. When members leave or go down by their checks, those that are
//! out already may be more than a tenth of who remains; they stay until their time is over. That the
//! set then falls well is the panic threshold's work.
//!
//! # What it promises
//! - No ejection makes more members be out than the cap allows, or the last one.
//! - Nobody is out longer than [`max_ejection_time`](EjectionPolicy::max_ejection_time) and
//!   [`jitter`](EjectionPolicy::jitter) before it is offered a trial.
//! - No decision is about a member that was not told of, and none repeats what is so already.
//! - The same calls make the same decisions in the same order.
//! - No reading of counters makes it panic: a member whose counters went back is judged again from
//!   the next sweep on.

mod counters;
mod ejector;
mod policy;
mod reason;
mod saved;
mod sweep;
mod table;

pub use self::counters::EjectionCounters;
pub use self::ejector::{
    EjectionAction, EjectionDecision, EjectionPhase, EjectionState, Ejector, OutlierSample,
    StreakReport,
};
pub use self::policy::{
    EjectionPolicy, EjectionPolicyError, FailurePercentageDetector, LatencyDetector,
    SuccessRateDetector,
};
pub use self::reason::{EjectionReason, EjectionReasonKind};
pub use self::saved::{SavedEjection, SavedEjectionPhase};
