//! A scheduler of your own, which selects the member with the fewest requests so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lvs::backend::Members;
use lvs::scheduler::{CompileError, PickContext, Picker, Scheduler, SchedulerRegistry};
use lvs::{BackendSet, Balancer, Flow, Spec};

/// The rule as configured; parameters would be its fields.
#[derive(Debug)]
struct Coldest;

/// The rule compiled for one list of members, with the number of picks of each.
#[derive(Debug)]
struct ColdestPicker(Vec<AtomicU64>);

impl Scheduler for Coldest {
    fn name(&self) -> &str {
        "coldest"
    }

    fn compile(
        &self,
        members: &Members,
        _previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(ColdestPicker(members.iter().map(|_| AtomicU64::new(0)).collect())))
    }
}

impl Picker for ColdestPicker {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let coldest = (0..self.0.len())
            .filter(|&i| cx.is_usable(i)) // up, below its limit, not tried before
            .min_by_key(|&i| self.0[i].load(Ordering::Relaxed))?;
        self.0[coldest].fetch_add(1, Ordering::Relaxed);
        Some(coldest)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = SchedulerRegistry::default();
    registry.register("coldest", |_| Ok(Arc::new(Coldest)))?;

    let set = BackendSet::new();
    let balancer = Balancer::new(&set, registry.parse("coldest")?)?;
    for name in ["c", "b", "a"] {
        set.insert(Spec::new(name, ()))?;
    }
    let next = || balancer.pick(&Flow::new()).map(|lease| lease.id().to_string());
    println!("all three serve: {} {} {} {}", next()?, next()?, next()?, next()?);

    // Every change of the set compiles the rule anew, so that counting starts at 0.
    set.set_weight(&"b".into(), 0)?;
    println!("b has weight 0:  {} {} {} {}", next()?, next()?, next()?, next()?);
    Ok(())
}
