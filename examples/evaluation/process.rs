//! Child processes of the evaluation: start, signals, CPU time and end.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use procfs::{Current, CurrentSI};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getrlimit, kill_process, set_parent_process_death_signal,
    setrlimit,
};

use crate::clock;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How long a condition may take to be met before the run fails.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Whether the user has interrupted the run.
pub(crate) static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Waits, and fails if the user interrupts the run.
pub(crate) fn pause(time: Duration) -> Result<(), Error> {
    let until = clock::now() + time;
    loop {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        let left = until.saturating_sub(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Waits until a condition is met.
pub(crate) fn wait_until(condition: &str, mut is_met: impl FnMut() -> bool) -> Result<(), Error> {
    let end = clock::now() + WAIT_TIMEOUT;
    while !is_met() {
        if clock::now() > end {
            return Err(format!(
                "timed out after {} s: waited until {condition}",
                WAIT_TIMEOUT.as_secs()
            )
            .into());
        }
        pause(Duration::from_millis(5))?;
    }
    Ok(())
}

/// Prepares a child process: it ends with its parent, and may open as many files as the system allows.
pub(crate) fn init_child() -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let max = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: max, maximum: max })?)
}

/// Where processes run: on this machine, or in a network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Namespace(pub(crate) Option<String>);

/// A process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program, whose output goes to a log file in the folder.
    pub(crate) fn start<S: AsRef<str>>(
        namespace: &Namespace,
        (folder, name): (&Path, &str),
        program: &Path,
        args: &[S],
    ) -> Result<Self, Error> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut command = match &namespace.0 {
            // `ip` executes the program in its own process, so that the process id is the program's.
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let command = command.args(args.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        let child =
            child.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Starts this program in another role.
    pub(crate) fn start_role<S: AsRef<str>>(
        namespace: &Namespace,
        files: (&Path, &str),
        args: &[S],
    ) -> Result<Self, Error> {
        Self::start(namespace, files, &std::env::current_exe()?, args)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until the process has ended with success.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        let mut status = None;
        wait_until("a process ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        match status.is_some_and(|status| status.success()) {
            true => Ok(()),
            false => Err(format!("a process failed: {}", self.log_text()).into()),
        }
    }

    /// Returns the output so far.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns the CPU time of the process; 0 if it has ended.
    pub(crate) fn cpu(&self) -> Duration {
        let stat =
            || procfs::process::Process::new(self.child.id().try_into().ok()?).ok()?.stat().ok();
        stat().map_or(Duration::ZERO, |stat| ticks(stat.utime + stat.stime))
    }

    /// Returns the CPU time of each thread.
    pub(crate) fn threads(&self) -> BTreeMap<i32, Duration> {
        let process = self.child.id().try_into().map(procfs::process::Process::new);
        let tasks = process.ok().and_then(Result::ok).and_then(|process| process.tasks().ok());
        let stats = tasks.into_iter().flatten().flatten().filter_map(|task| task.stat().ok());
        stats.map(|stat| (stat.pid, ticks(stat.utime + stat.stime))).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process only ends by SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Returns the CPU time of the kernel's threads for software interrupts, which carry packets when there
/// is no other task to interrupt.
pub(crate) fn softirq_threads() -> Result<Duration, Error> {
    let stats = procfs::process::all_processes()?.filter_map(|process| process.ok()?.stat().ok());
    let threads = stats.filter(|stat| stat.comm.starts_with("ksoftirqd/"));
    Ok(threads.map(|stat| ticks(stat.utime + stat.stime)).sum())
}

/// Returns the idle time of all processors of the machine together.
pub(crate) fn idle() -> Result<Duration, Error> {
    let cpu = procfs::KernelStats::current()?.total;
    Ok(ticks(cpu.idle + cpu.iowait.unwrap_or(0)))
}

/// Returns the number of processors of the machine.
pub(crate) fn processors() -> Result<f64, Error> {
    Ok(procfs::KernelStats::current()?.cpu_time.len() as f64)
}

/// Describes the machine: processors and kernel.
pub(crate) fn describe() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let model = procfs::CpuInfo::current().ok();
    let model = model.and_then(|info| Some(info.model_name(0)?.to_owned()));
    let kernel = procfs::sys::kernel::Version::current();
    let kernel = kernel.map_or_else(
        |_| "Linux".to_owned(),
        |version| format!("Linux {}.{}", version.major, version.minor),
    );
    format!(
        "{} with {cores} processors, {kernel}",
        model.unwrap_or_else(|| "Unknown processor".to_owned())
    )
}

/// Returns a loopback address whose port is free at the moment.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
