//! The processes of the benchmark and of the peers: start, pinning, output and end.
//!
//! Every child asks the kernel to kill it when the benchmark dies, and is killed by its process id when
//! its [`Child`] is dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// The cores of a run. Both are the same if there is only one core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The core of the subject.
    pub(crate) forwarder: usize,
    /// The core of the load and the backends.
    pub(crate) load: usize,
}

impl Cores {
    /// Selects the first two cores that this process may run on.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let mut allowed =
            (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
        let forwarder = allowed.next().context("no core to run on")?;
        Ok(Self { forwarder, load: allowed.next().unwrap_or(forwarder) })
    }

    pub(crate) fn are_two(self) -> bool {
        self.forwarder != self.load
    }
}

/// Sets up a child: it dies with its parent, and runs on its core only.
pub(crate) fn enter(core: Option<usize>) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    if let Some(core) = core {
        let mut set = CpuSet::new();
        set.set(core).context("no such core")?;
        sched_setaffinity(Pid::from_raw(0), &set).context("sched_setaffinity")?;
    }
    Ok(())
}

/// Executes another program, which inherits the core, the death signal and the process id.
pub(crate) fn exec(program: &OsStr, arguments: &[OsString]) -> Result<()> {
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

/// Raises the limit of open files to its maximum, for children to inherit; returns the limit.
pub(crate) fn raise_descriptors() -> Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit")?;
    Ok(hard)
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    child: tokio::process::Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    errors: PathBuf,
}

impl Child {
    /// Starts this program with other arguments. Its stderr goes to a file in `folder`.
    pub(crate) fn start<A: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        core: Option<usize>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the program of this process")?;
        Self::start_program(folder, name, &program, core, arguments)
    }

    /// As [`start`](Self::start), with another build of this program.
    pub(crate) fn start_program<A: AsRef<OsStr>>(
        folder: &Path,
        name: &str,
        program: &Path,
        core: Option<usize>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let errors = folder.join(format!("{name}.stderr"));
        let mut command = Command::new(program);
        if let Some(core) = core {
            command.arg(format!("--core={core}"));
        }
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&errors)?).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("a child without stdout")?;
        let output = BufReader::new(output).lines();
        Ok(Self { name: name.to_owned(), child, input, output, errors })
    }

    /// Reads the next line of stdout, which must start with `prefix`, and returns the rest.
    pub(crate) async fn expect(&mut self, prefix: &str, within: Duration) -> Result<String> {
        let line = match timeout(within, self.output.next_line()).await {
            Ok(line) => line?,
            Err(_) => {
                bail!("{}: no `{prefix}` within {within:?}\n{}", self.name, self.stderr_text())
            }
        };
        let rest = line.as_deref().and_then(|line| line.strip_prefix(prefix));
        match rest {
            Some(rest) => Ok(rest.trim().to_owned()),
            None => {
                bail!("{}: printed {line:?}, not `{prefix}`\n{}", self.name, self.stderr_text())
            }
        }
    }

    /// Writes a line to stdin.
    pub(crate) async fn write_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the stdin of the child is closed")?;
        input.write_all(format!("{line}\n").as_bytes()).await.context(self.name.clone())?;
        Ok(input.flush().await?)
    }

    /// Waits until the child ends by itself; fails if its status is an error.
    pub(crate) async fn finish(mut self, within: Duration) -> Result<()> {
        self.input = None;
        let Ok(status) = timeout(within, self.child.wait()).await else {
            bail!("{}: did not end within {within:?}", self.name);
        };
        let status = status?;
        ensure!(status.success(), "{}: {status}\n{}", self.name, self.stderr_text());
        Ok(())
    }

    /// Fails if the child has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{}: ended, {status}\n{}", self.name, self.stderr_text()),
            None => Ok(()),
        }
    }

    /// Kills the child, and waits for its end.
    pub(crate) async fn end(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    fn stderr_text(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{}: has ended", self.name))
    }

    fn path(&self, file: &str) -> Result<PathBuf> {
        Ok(Path::new("/proc").join(self.id()?.to_string()).join(file))
    }

    /// Returns the time that the threads were on a processor, in nanoseconds, as the scheduler counts it
    /// (first field of `schedstat`), not in the ticks of `stat`.
    pub(crate) fn cpu_nanos(&self) -> Result<u64> {
        let mut sum = 0;
        for task in std::fs::read_dir(self.path("task")?)? {
            // A thread may end meanwhile, but no thread of a subject ends while it is measured.
            let Ok(line) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let nanos = line.split(' ').next().and_then(|field| field.parse::<u64>().ok());
            sum += nanos.with_context(|| format!("cannot read schedstat: {line:?}"))?;
        }
        Ok(sum)
    }

    /// Returns the resident memory in bytes, counted page by page (`smaps_rollup`): `statm` may lag by
    /// some pages per core.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(self.path("smaps_rollup")?)?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.context("no Rss in smaps_rollup")? * 1024)
    }
}
