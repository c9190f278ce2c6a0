//! The parameter `seed` of the consistent hash schedulers.

use crate::scheduler::parameter::{ParameterKind, SchedulerParameter};

pub(in crate::scheduler) const SEED: SchedulerParameter = SchedulerParameter::new(
    "seed",
    ParameterKind::Integer { min: 0, max: u64::MAX },
    Some("0"),
    "The seed of the hash that places servers and keys",
);
