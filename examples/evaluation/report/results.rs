//! The measurements that the report shows.

use std::time::Duration;

use crate::measure::Step;
use crate::plan::Plan;
use crate::redundancy::FaultResult;
use crate::schedulers::SchedulerResult;

/// The measurements of a run.
pub(crate) struct Results {
    pub(crate) plan: Plan,
    pub(crate) performance: Vec<Step>,
    pub(crate) schedulers: Vec<SchedulerResult>,
    pub(crate) ceiling: Vec<Step>,
    pub(crate) redundancy: Vec<FaultResult>,
    pub(crate) duration: Duration,
}
