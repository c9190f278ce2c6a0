//! Runs tests as the first process of a Linux kernel of their own.
//!
//! Some tests need what the kernel of this machine does not have or must not be asked for. They are
//! written as ordinary tests that are ignored:
//!
//! ```ignore
//! #[test]
//! #[ignore = "runs in a kernel of its own"]
//! fn the_kernel_accepts_a_service() {
//!     if !guest::enter() { return; }
//!     ...
//! }
//! ```
//! and one test that is not ignored boots a kernel and runs all of them:
//!
//! ```ignore
//! #[test]
//! fn in_user_mode_linux() {
//!     Guest::new("inside::").modules(&["ip_vs"]).programs(&["ip"]).run(GuestKernel::UserMode);
//! }
//! ```
//! The kernel's first process is this very test binary. User-mode Linux shows it the files of this
//! machine, read-only; for QEMU the binary, the programs and the modules are packed into an initramfs.
//! When the process ends, the kernel ends. Kernels, QEMU and programs are Debian's packages, which are
//! unpacked below the target folder, and never installed.

mod image;
mod inside;
mod modules;
mod packages;
mod qemu;
mod user_mode;

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

pub(crate) use self::inside::{enter, is_emulated, move_card, return_card};
use self::skipped::report_skipped;

#[path = "../skipped.rs"]
mod skipped;

/// A kernel is ended after this time: several times what tests take on a busy machine.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// For one that counts instructions, and so measures.
const COUNTING_TIME_LIMIT: Duration = Duration::from_secs(1200);

/// A kernel that tests run in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum GuestKernel {
    /// Debian's user-mode Linux: a process of this machine, up in two seconds.
    UserMode,
    /// Debian's newest kernel for virtual machines, in QEMU without the processor's help: up in three to
    /// five seconds.
    Qemu,
}

/// Tests that run in a kernel of their own.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    filter: &'static str,
    left_out: &'static [&'static str],
    modules: Vec<&'static str>,
    programs: Vec<&'static str>,
    packages: Vec<&'static str>,
    counts_instructions: bool,
    wires: &'static [u8],
}

impl Guest {
    /// The ignored tests whose names have `filter` in them.
    pub(crate) fn new(filter: &'static str) -> Self {
        let (modules, programs, packages) = (Vec::new(), Vec::new(), Vec::new());
        let (counts_instructions, wires) = (false, &[]);
        Self { filter, left_out: &[], modules, programs, packages, counts_instructions, wires }
    }

    /// Leaves out the tests whose names have one of these in them.
    pub(crate) fn without(mut self, names: &'static [&'static str]) -> Self {
        self.left_out = names;
        self
    }

    /// Loads these modules, and those that they need. One that a kernel does not have is left out.
    pub(crate) fn modules(mut self, modules: &[&'static str]) -> Self {
        self.modules.extend(modules);
        self
    }

    /// Makes programs available that this machine has: of its system by their names, others by their
    /// paths.
    pub(crate) fn programs(mut self, programs: &[&'static str]) -> Self {
        self.programs.extend(programs);
        self
    }

    /// Makes a program of a Debian package available, which has the package's name.
    pub(crate) fn packages(mut self, packages: &[&'static str]) -> Self {
        self.packages.extend(packages);
        self
    }

    /// Has the clock of a kernel in QEMU advance by a nanosecond for each instruction, whatever time that
    /// takes. It has one processor then, and leaps to the next timer while the processor is idle.
    pub(crate) fn counting_instructions(mut self) -> Self {
        self.counts_instructions = true;
        self
    }

    /// Gives a kernel in QEMU as many network cards as are named at each of its wires, with the driver `virtio_net`. Tests
    /// [move](move_card) them to their machines.
    pub(crate) fn wires(mut self, wires: &'static [u8]) -> Self {
        self.wires = wires;
        self
    }

    /// Boots a kernel and runs the tests. Skipped, with the reason, where kernels cannot be had.
    ///
    /// # Panics
    /// If a test fails, if none runs, if the kernel does not end in time; in CI, if it cannot be had.
    pub(crate) fn run(&self, kernel: GuestKernel) {
        let command = match kernel {
            GuestKernel::UserMode => user_mode::command(self),
            GuestKernel::Qemu => qemu::command(self),
        };
        let (command, folder) = match command {
            Ok(prepared) => prepared,
            Err(reason) => {
                assert!(std::env::var_os("CI").is_none(), "{reason}");
                return report_skipped(reason);
            }
        };
        let limit = if self.counts_instructions { COUNTING_TIME_LIMIT } else { TIME_LIMIT };
        let output = run_within(command, limit);
        drop(folder);
        // The end of the first process is a panic to a kernel.
        let text = output
            .split("Kernel panic - not syncing: Attempted to kill init")
            .next()
            .unwrap_or_default();
        println!("--- inside {kernel:?}\n{text}\n--- end of {kernel:?}");
        let result = output.lines().find_map(|line| line.split_once("test result: "));
        let (_, result) = result.expect("the kernel ended before its tests did");
        assert!(result.starts_with("ok. "), "{result}");
        assert!(!result.starts_with("ok. 0 passed"), "no test has {:?} in its name", self.filter);
    }

    /// What the test binary is called with.
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec![self.filter, "--ignored", "--nocapture", "--test-threads=1"];
        arguments.extend(self.left_out.iter().flat_map(|name| ["--skip", name]));
        arguments
    }

    /// Returns where the programs are: those of this machine as they are, those of packages unpacked.
    fn program_paths(&self) -> Result<Vec<PathBuf>, String> {
        let mut paths = Vec::new();
        for program in &self.programs {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .into_iter()
                .map(|folder| Path::new(folder).join(program))
                .find(|path| path.exists());
            paths.push(found.ok_or_else(|| format!("the program {program} is missing"))?);
        }
        for package in &self.packages {
            let root = packages::unpack(package, &[package])?;
            let found = ["usr/sbin", "usr/bin", "sbin", "bin"]
                .into_iter()
                .map(|folder| root.join(folder).join(package))
                .find(|path| path.exists());
            paths.push(found.ok_or_else(|| format!("the package {package} has no such program"))?);
        }
        Ok(paths)
    }
}

/// A folder that is removed with its owner.
#[derive(Debug)]
struct WorkFolder(PathBuf);

impl WorkFolder {
    /// Makes a folder. Not below `/dev`, where user-mode Linux has devices of its own.
    fn create() -> Result<Self, String> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = packages::folder().join(format!("run-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a command and returns what it printed. After the time limit its process group is ended.
fn run_within(mut command: Command, limit: Duration) -> String {
    let (mut output, writer) = std::io::pipe().expect("a pipe");
    command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    let mut child = command.process_group(0).spawn().expect("the kernel's program starts");
    // It has the last writing ends of the pipe.
    drop(command);
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = output.read_to_end(&mut bytes);
        let _ = sender.send(());
        String::from_utf8_lossy(&bytes).replace('\r', "")
    });
    let is_late = receiver.recv_timeout(limit).is_err();
    if is_late {
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
    let mut text = reader.join().expect("the reader does not panic");
    if is_late {
        text += &format!("\nended after {limit:?}");
    }
    text
}
