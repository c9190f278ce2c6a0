//! Outlier ejection: passive health, judged by the outcomes of real traffic.
//!
//! A backend that passes its checks but fails its traffic is ejected for a while, then given one trial
//! lease (a connection or a request), and gets its share of traffic back step by step when the trial
//! succeeds. [`EjectionPolicy`] holds the settings, [`Ejector`] is the state machine: it uses no
//! runtime, reads no clock and changes no set. Its caller feeds it [samples](OutlierSample),
//! [failure streaks](StreakReport) and the time, and applies its [decisions](EjectionDecision) to the
//! set. A [`Monitor`](super::Monitor) does that for each [`HealthPlan`](super::HealthPlan) with an
//! ejection policy.
//!
//! # Detectors
//! | detector | ejects a backend | when | default | compare |
//! |---|---|---|---|---|
//! | [`consecutive_failures`](super::EjectionPolicyBuilder::consecutive_failures) | after this many failures of any kind in a row | at once | 5 | Envoy, Finagle: 5; HAProxy's `observe`: 10 |
//! | [`consecutive_connect_failures`](super::EjectionPolicyBuilder::consecutive_connect_failures) | after this many failed connects in a row | at once | 3 | HAProxy's `fall`: 3; Envoy: 5; nginx, Finagle: 1 |
//! | [`failure_percentage`](super::EjectionPolicyBuilder::failure_percentage) | at this percentage of failures, if 5 members had 50 requests | in sweeps | 85 % | Envoy, gRPC (A50) |
//! | [`success_rate`](super::EjectionPolicyBuilder::success_rate) | below the mean by this many standard deviations, if 5 members had 100 requests | in sweeps | 1.9, and 5 points | Envoy, gRPC: 1.9; the points are this crate's |
//! | [`latency`](super::EjectionPolicyBuilder::latency) | above this multiple of the median of the other members, if 5 members had 100 answers | in sweeps | off | no published default |
//!
//! Each detector can be switched off. Sweeps are 10 s apart. A failure is an application error, a
//! failed connect or a timeout; a cancelled lease counts neither as success nor as failure.
//!
//! # Duration of an ejection
//! The first ejection lasts the base time of 30 s, each further ejection in a row 30 s longer, 300 s
//! at most: 30, 60, 90 ... 300, as in Envoy and gRPC. "In a row" is a multiplier: each ejection adds 1,
//! up to the value that reaches the maximum time, and each sweep in which the member is not ejected
//! and is no outlier subtracts 1.
//!
//! Then the member is on trial, as in Finagle: it gets one lease. If the lease succeeds, the member
//! returns with a [ramp](super::EjectionPolicyBuilder::ramp) of its own; if the lease fails, the member is
//! ejected again, for the next longer time. Envoy returns the whole share at once, so that five more
//! requests fail if the backend is still broken. A member that was ejected because connections to it failed
//! has passed its trial when the connection is made.
//!
//! # Maximum number of ejected members
//! A tenth of the available members, rounded down, but at least one; 0 % ejects none. A member is available if it is
//! enabled, has a weight above 0 and is up by its checks. Members on trial count as ejected. The last
//! available member is never ejected: bad answers from one server are better than no answers, and
//! without other members to compare with, nothing shows that the fault is the server's own.
//!
//! | available members | 1 | 2 | 3 to 19 | 20 | 100 |
//! |---|---|---|---|---|---|
//! | ejected at most, at 10 % | 0 | 1 | 1 | 2 | 10 |
//!
//! The limit is checked at each ejection. When members leave or their checks fail, the members that
//! are already ejected may be more than a tenth of the remaining ones; they stay ejected until their
//! time ends. The [panic threshold](crate::backend::FailMode) of the set handles that case.
//!
//! # Guarantees
//! - No ejection exceeds the maximum number of ejected members or ejects the last available member.
//! - No member stays ejected longer than
//!   [`max_ejection_time`](super::EjectionPolicyBuilder::max_ejection_time) plus
//!   [`jitter`](super::EjectionPolicyBuilder::jitter) before its trial starts.
//! - No decision concerns an untracked member, and no decision repeats the current state.
//! - The same calls make the same decisions in the same order.
//! - No values of the counters cause a panic: a member whose counters decreased is judged again from
//!   the next sweep on.

mod counters;
mod decision;
pub(super) mod detectors;
mod ejector;
mod observation;
mod phase;
pub(super) mod policy;
mod reason;
mod saved;
mod sweep;
mod table;

pub use self::counters::EjectionCounters;
pub use self::decision::{EjectionAction, EjectionDecision};
use self::detectors::{FailurePercentageDetector, LatencyDetector, SuccessRateDetector};
pub use self::ejector::Ejector;
pub use self::observation::{OutlierSample, StreakReport};
pub use self::phase::{EjectionPhase, EjectionState};
use self::policy::EjectionPolicy;
pub use self::reason::{EjectionReason, EjectionReasonKind};
pub use self::saved::{SavedEjection, SavedEjectionPhase};
