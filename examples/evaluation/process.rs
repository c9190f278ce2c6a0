//! Processes of the evaluation: started, told, measured and ended by their numbers.

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

/// How long anything may take before it is held to be lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the user wants it to end.
pub(crate) static ENDS: AtomicBool = AtomicBool::new(false);

/// Waits, unless the user wants it to end.
pub(crate) fn pause(time: Duration) -> Result<(), Error> {
    let until = clock::now() + time;
    loop {
        if ENDS.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        let left = until.saturating_sub(clock::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(20)));
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Error> {
    let end = clock::now() + PATIENCE;
    while !is_so() {
        if clock::now() > end {
            return Err(format!("not so after {} s: {what}", PATIENCE.as_secs()).into());
        }
        pause(Duration::from_millis(5))?;
    }
    Ok(())
}

/// For a process that this program started as something else: it ends with its parent, and may open
/// as many files as the system allows.
pub(crate) fn be_a_part() -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}

/// Where processes run: on this machine, or in a network namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(pub(crate) Option<String>);

/// A process, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes to a file in the folder.
    pub(crate) fn start<S: AsRef<str>>(
        place: &Place,
        (folder, name): (&Path, &str),
        program: &Path,
        words: &[S],
    ) -> Result<Self, Error> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let mut command = match &place.0 {
            // It becomes the program, so that the number is the program's.
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", space]).arg(program);
                command
            }
            None => Command::new(program),
        };
        let command = command.args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null());
        let child = command.stdout(file.try_clone()?).stderr(file).spawn();
        let child =
            child.map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Starts this program in another role.
    pub(crate) fn part<S: AsRef<str>>(
        place: &Place,
        files: (&Path, &str),
        words: &[S],
    ) -> Result<Self, Error> {
        Self::start(place, files, &std::env::current_exe()?, words)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has ended by itself, and well.
    pub(crate) fn wait(&mut self) -> Result<(), Error> {
        let mut status = None;
        until("a process ends", || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })?;
        match status.is_some_and(|status| status.success()) {
            true => Ok(()),
            false => Err(format!("a process failed: {}", self.said()).into()),
        }
    }

    /// What it has said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has had of the processors; of one that is gone, nothing.
    pub(crate) fn cpu(&self) -> Duration {
        let stat =
            || procfs::process::Process::new(self.child.id().try_into().ok()?).ok()?.stat().ok();
        stat().map_or(Duration::ZERO, |stat| ticks(stat.utime + stat.stime))
    }

    /// The same of each of its threads.
    pub(crate) fn threads(&self) -> BTreeMap<i32, Duration> {
        let process = self.child.id().try_into().map(procfs::process::Process::new);
        let tasks = process.ok().and_then(Result::ok).and_then(|process| process.tasks().ok());
        let stats = tasks.into_iter().flatten().flatten().filter_map(|task| task.stat().ok());
        stats.map(|stat| (stat.pid, ticks(stat.utime + stat.stime))).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that was stopped would not die of its own accord.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// How long the machine's processors had nothing to do, all together.
pub(crate) fn idle() -> Result<Duration, Error> {
    let cpu = procfs::KernelStats::current()?.total;
    Ok(ticks(cpu.idle + cpu.iowait.unwrap_or(0)))
}

/// How many processors the machine has.
pub(crate) fn processors() -> Result<f64, Error> {
    Ok(procfs::KernelStats::current()?.cpu_time.len() as f64)
}

/// What the machine is: processors, their name, and the kernel.
pub(crate) fn describe() -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let model = procfs::CpuInfo::current().ok();
    let model = model.and_then(|info| Some(info.model_name(0)?.to_owned()));
    let kernel = procfs::sys::kernel::Version::current();
    let kernel =
        kernel.map_or_else(|_| "Linux".to_owned(), |it| format!("Linux {}.{}", it.major, it.minor));
    format!("{} with {cores} processors, {kernel}", model.unwrap_or_else(|| "A machine".to_owned()))
}

/// An address of this machine that is free at the moment.
pub(crate) fn free() -> Result<SocketAddr, Error> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Tells whether a program is installed.
pub(crate) fn is_there(program: &str) -> bool {
    let output = Command::new(program).arg("-v").output();
    output.is_ok_and(|output| output.status.success())
}
