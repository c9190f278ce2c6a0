//! The processor time of all that takes part in a measurement.
//!
//! The scheduler counts it in nanoseconds (`/proc/PID/task/*/schedstat`). A kernel without
//! `IRQ_TIME_ACCOUNTING` charges the time of software interrupts, which carry the packets, to the task that
//! they interrupt. All tasks of a measurement are on one core, so that they interrupt each other. The
//! kernel's own threads of that core are counted too.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

/// The tasks that are counted.
#[derive(Clone, Debug)]
pub(crate) struct CountedTasks {
    /// Processes besides the calling one, which is counted too.
    pub(crate) processes: Vec<u32>,
    pub(crate) core: usize,
}

/// What was counted until a moment.
#[derive(Clone, Debug)]
pub(crate) struct CpuReading {
    own_nanos: u64,
    task_nanos: BTreeMap<u32, u64>,
    wall_nanos: u64,
}

impl CountedTasks {
    /// Reads the time of each task. The work of reading is not in the difference of two readings.
    pub(crate) fn read_first(&self) -> Result<CpuReading> {
        let task_nanos = self.task_nanos()?;
        Ok(CpuReading {
            task_nanos,
            own_nanos: nanos_of(ClockId::ProcessCPUTime),
            wall_nanos: nanos_of(ClockId::Monotonic),
        })
    }

    /// As [`read_first`](Self::read_first), at the end of a measurement.
    pub(crate) fn read_last(&self) -> Result<CpuReading> {
        let (own_nanos, wall_nanos) =
            (nanos_of(ClockId::ProcessCPUTime), nanos_of(ClockId::Monotonic));
        Ok(CpuReading { own_nanos, wall_nanos, task_nanos: self.task_nanos()? })
    }

    fn task_nanos(&self) -> Result<BTreeMap<u32, u64>> {
        let mut found = BTreeMap::new();
        for id in self.processes.iter().copied().chain(kernel_threads(self.core)?) {
            let mut sum = 0;
            // A thread of the kernel may end meanwhile.
            for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten() {
                let Ok(line) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
                let nanos = line.split(' ').next().and_then(|field| field.parse::<u64>().ok());
                sum += nanos.with_context(|| format!("cannot read schedstat: {line:?}"))?;
            }
            found.insert(id, sum);
        }
        Ok(found)
    }
}

impl CpuReading {
    /// Returns the processor time and the time on the clock since an earlier reading, in nanoseconds.
    pub(crate) fn since(&self, earlier: &Self) -> (u64, u64) {
        let tasks = self.task_nanos.iter().map(|(id, nanos)| {
            // What has begun meanwhile began with nothing.
            nanos.saturating_sub(earlier.task_nanos.get(id).copied().unwrap_or(0))
        });
        let cpu = tasks.sum::<u64>() + (self.own_nanos - earlier.own_nanos);
        (cpu, self.wall_nanos - earlier.wall_nanos)
    }
}

/// Returns the clock's nanoseconds.
pub(crate) fn nanos_of(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Returns the threads of the kernel that work for a core: software interrupts and deferred work.
fn kernel_threads(core: usize) -> Result<Vec<u32>> {
    let (softirq, worker) = (format!("ksoftirqd/{core}"), format!("kworker/{core}:"));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(name) = fs::read_to_string(format!("/proc/{id}/comm")) else { continue };
        if name.trim_end() == softirq || name.starts_with(&worker) {
            found.push(id);
        }
    }
    Ok(found)
}
