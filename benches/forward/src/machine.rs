//! The machine and the programs of a run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Cores;

/// The programs to compare with, if they are installed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    /// An earlier build of this program.
    pub(crate) before: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) nginx: Option<PathBuf>,
    /// nginx's stream module, if it is a file of its own.
    pub(crate) nginx_stream: Option<PathBuf>,
}

impl Peers {
    /// Looks for the programs, but for an earlier build, which only the command line names.
    pub(crate) fn find(before: Option<PathBuf>) -> Self {
        let nginx = find("nginx");
        let mut modules = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"]
            .map(|folder| Path::new(folder).join("ngx_stream_module.so"))
            .into_iter();
        let nginx_stream = modules.find(|path| path.exists());
        let is_built_in = nginx.as_deref().is_some_and(|program| {
            // Printed on stderr, as one line.
            output_of(program, "-V").split_whitespace().any(|word| word == "--with-stream")
        });
        let can_stream = is_built_in || nginx_stream.is_some();
        Self { before, haproxy: find("haproxy"), nginx: nginx.filter(|_| can_stream), nginx_stream }
    }
}

/// The machine and what ran on it.
#[derive(Debug)]
pub(crate) struct Machine {
    model: String,
    cores: usize,
    pinned: Cores,
    kernel: String,
    rustc: String,
    haproxy: String,
    nginx: String,
    descriptors: u64,
}

impl Machine {
    pub(crate) fn inspect(peers: &Peers, pinned: Cores, descriptors: u64) -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown processor");
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let version = |program: &Option<PathBuf>, argument| match program {
            Some(program) => output_of(program, argument)
                .lines()
                .next()
                .unwrap_or("of unknown version")
                .to_owned(),
            None => "not installed".to_owned(),
        };
        Self {
            model: model.to_owned(),
            cores: std::thread::available_parallelism().map_or(0, |cores| cores.get()),
            pinned,
            kernel: kernel.trim().to_owned(),
            rustc: output_of(Path::new("rustc"), "--version").trim().to_owned(),
            haproxy: version(&peers.haproxy, "-v"),
            nginx: version(&peers.nginx, "-v"),
            descriptors,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {} cores, Linux {}, {}", self.model, self.cores, self.kernel, self.rustc)?;
        writeln!(f, "HAProxy: {}", self.haproxy)?;
        writeln!(f, "nginx: {}", self.nginx)?;
        let Cores { forwarder, load } = self.pinned;
        let note =
            if self.pinned.are_two() { "" } else { " (only one core: the figures mean nothing)" };
        write!(
            f,
            "forwarder on core {forwarder}, load and backends on core {load}{note}; {} descriptors",
            self.descriptors
        )
    }
}

/// Finds a program on the path, or in the folders of system programs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let mut folders = std::env::split_paths(&path).chain(system);
    folders.find_map(|folder| Some(folder.join(program)).filter(|path| path.is_file()))
}

/// Returns the output of a program, on stdout or else on stderr.
fn output_of(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).into_owned()
        },
    )
}
