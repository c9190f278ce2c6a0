//! The metrics of the process, under the names that Prometheus' client libraries have for them.
//!
//! They are rendered without the recorder, whose counters are whole numbers: CPU time has hundredths of
//! a second.

use std::fmt::Write;

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};

/// Appends the metrics of this process; nothing where `/proc` cannot be read.
pub(super) fn render_process(text: &mut String) {
    let Ok(process) = ProcessMetrics::read() else { return };
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "CPU time of the process, user and system.",
            process.cpu_seconds,
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Memory of the process that is resident.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "gauge",
            "Address space of the process.",
            process.virtual_bytes,
        ),
        ("process_open_fds", "gauge", "Open file descriptors.", process.open_descriptors),
        (
            "process_max_fds",
            "gauge",
            "The limit of open file descriptors.",
            process.max_descriptors,
        ),
        ("process_threads", "gauge", "Threads of the process.", process.threads),
        (
            "process_start_time_seconds",
            "gauge",
            "The time at which the process started, since the Unix epoch.",
            process.started_at,
        ),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

/// The values of this moment; times in seconds.
#[derive(Debug)]
struct ProcessMetrics {
    cpu_seconds: f64,
    resident_bytes: f64,
    virtual_bytes: f64,
    open_descriptors: f64,
    max_descriptors: f64,
    threads: f64,
    started_at: f64,
}

impl ProcessMetrics {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let seconds = |ticks: u64| ticks as f64 / procfs::ticks_per_second() as f64;
        Ok(Self {
            cpu_seconds: seconds(stat.utime + stat.stime),
            resident_bytes: (stat.rss * procfs::page_size()) as f64,
            virtual_bytes: stat.vsize as f64,
            open_descriptors: process.fd_count()? as f64,
            max_descriptors: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Unlimited => f64::INFINITY,
                LimitValue::Value(limit) => limit as f64,
            },
            threads: stat.num_threads as f64,
            started_at: procfs::boot_time_secs()? as f64 + seconds(stat.starttime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_those_of_this_process() {
        let process = ProcessMetrics::read().expect("procfs");
        assert!(process.threads >= 1.0 && process.open_descriptors >= 3.0, "{process:?}");
        assert!(process.resident_bytes > 1e6, "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.max_descriptors > process.open_descriptors, "{process:?}");
        // After 2020, in seconds.
        assert!(process.started_at > 1.6e9 && process.started_at < 1e11, "{process:?}");
    }
}
