//! The schedulers that [`Registry::default`](super::Registry) knows: one line each.

use std::sync::Arc;

use super::priority::{OVERPROVISIONING_RANGE, PANIC_RANGE};
use super::{Params, Priority, RegistryError, RoundRobin, Scheduler};

type Built = Result<Arc<dyn Scheduler>, RegistryError>;
type Factory = fn(&mut Params<'_>) -> Built;

/// Every built-in name, and what makes a scheduler of its parameters.
pub(super) const SCHEDULERS: &[(&str, Factory)] = &[
    ("rr", |_| Ok(Arc::new(RoundRobin))),
    // Wrappers.
    ("priority", priority),
];

fn priority(params: &mut Params<'_>) -> Built {
    let overprovisioning = params.value_in("overprovisioning", OVERPROVISIONING_RANGE)?;
    let panic = params.value_in("panic", PANIC_RANGE)?;
    let mut it = Priority::new(params.scheduler()?);
    if let Some(percent) = overprovisioning {
        it = it.with_overprovisioning(percent).map_err(|error| params.refuse(error))?;
    }
    if let Some(percent) = panic {
        it = it.with_panic_threshold(percent).map_err(|error| params.refuse(error))?;
    }
    Ok(Arc::new(it))
}
