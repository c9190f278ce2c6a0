//! Servers that misbehave, real servers that end with the test, and checks run as the monitor runs
//! them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lvs::health::{Check, CheckContext, CheckFailure, CheckFailureKind, CheckReport};
use rustix::process::{Pid, Signal, kill_process_group};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::loopback::own_address;
use crate::skipped::report_skipped;

/// A time limit that no successful test reaches.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Returns an address of one test with a free port, for a program that needs a port in its configuration.
pub(crate) fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind(own_address()).expect("loopback");
    socket.local_addr().expect("bound")
}

// --- running a check --------------------------------------------------------------------------

/// Runs a check once with a timeout, as the monitor does.
pub(crate) async fn run(
    check: &impl Check,
    address: SocketAddr,
    timeout: Duration,
) -> Result<CheckReport, CheckFailure> {
    ask(check, &CheckContext::new("server".into(), address), timeout).await
}

/// Runs a check once with a context and a timeout.
pub(crate) async fn ask(
    check: &impl Check,
    context: &CheckContext,
    timeout: Duration,
) -> Result<CheckReport, CheckFailure> {
    let elapsed = |_| {
        let reason = format!("timed out {}", context.stage());
        Err(CheckFailure::new(CheckFailureKind::Timeout, reason))
    };
    tokio::time::timeout(timeout, check.check(context)).await.unwrap_or_else(elapsed)
}

/// Checks a server that never completes its answer: when the check has reached a stage, the paused
/// clock advances to the timeout.
///
/// For a runtime with one thread. No real time passes, so a busy machine does not fail the test.
pub(crate) async fn run_out_of_time(
    check: &impl Check,
    address: SocketAddr,
    stage: &str,
) -> CheckFailure {
    let context = CheckContext::new("server".into(), address);
    let watch = async {
        until(|| context.stage() == stage).await;
        tokio::time::pause();
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = ask(check, &context, LONG) => answer,
        () = watch => unreachable!("the watcher never ends"),
    };
    tokio::time::resume();
    answer.expect_err("a timeout")
}

/// Waits for a condition.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    let started = tokio::time::Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "the condition never holds");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Asserts the kind of a failure, and that its reason contains words and is fit for a log.
#[track_caller]
pub(crate) fn assert_fails(
    answer: Result<CheckReport, CheckFailure>,
    kind: CheckFailureKind,
    words: &str,
) {
    let failure = answer.expect_err("a failure");
    assert_eq!(failure.kind(), kind, "{failure}");
    assert!(failure.reason().contains(words), "`{failure}` does not contain `{words}`");
    assert!(failure.reason().len() < 300, "too long for a log: {failure}");
    let printable = |c: char| !c.is_control();
    assert!(failure.reason().chars().all(printable), "not for a log: {failure:?}");
}

// --- servers that misbehave -------------------------------------------------------------------

/// The steps of a server on each connection, before it misbehaves.
///
/// ```text
/// let server = Script::new().receives("\r\n").sends("220 hello\r\n").stalls().await;
/// let answer = run(&check, server.address, LONG).await;
/// ```
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<u8>),
    Send(Vec<u8>),
}

/// The misbehaviour after the last step.
#[derive(Clone, Debug)]
enum End {
    Stall,
    Reset,
    Close,
    Trickle(Vec<u8>),
    Repeat(Vec<u8>),
}

impl Script {
    /// Accepts a connection.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits until the received bytes end with these bytes.
    pub(crate) fn receives(mut self, end: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Receive(end.as_ref().to_vec()));
        self
    }

    /// Sends these bytes.
    pub(crate) fn sends(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.steps.push(Step::Send(bytes.as_ref().to_vec()));
        self
    }

    /// Then sends nothing more, and leaves the connection open.
    pub(crate) async fn stalls(self) -> Stage {
        Stage::open(self, End::Stall).await
    }

    /// Then resets the connection.
    pub(crate) async fn resets(self) -> Stage {
        Stage::open(self, End::Reset).await
    }

    /// Then closes the connection.
    pub(crate) async fn closes(self) -> Stage {
        Stage::open(self, End::Close).await
    }

    /// Then sends these bytes repeatedly, one byte a second.
    pub(crate) async fn trickles(self, bytes: impl AsRef<[u8]>) -> Stage {
        Stage::open(self, End::Trickle(bytes.as_ref().to_vec())).await
    }

    /// Then sends these bytes repeatedly, as fast as the client reads.
    pub(crate) async fn never_ends(self, bytes: impl AsRef<[u8]>) -> Stage {
        Stage::open(self, End::Repeat(bytes.as_ref().to_vec())).await
    }
}

/// A server that runs a [`Script`] on each connection, until it is dropped.
pub(crate) struct Stage {
    pub(crate) address: SocketAddr,
    sent: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

impl Stage {
    async fn open(script: Script, end: End) -> Self {
        let listener = TcpListener::bind(own_address()).await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let sent = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&sent);
        let serving = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, end, count) = (script.clone(), end.clone(), Arc::clone(&count));
                connections.spawn(async move { play(stream, script, end, &count).await });
            }
        });
        Self { address, sent, serving }
    }

    /// Returns the bytes sent on all connections, somewhat more than the clients have read.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Runs a script on a connection; returns when the client has closed it.
async fn play(mut stream: TcpStream, script: Script, end: End, sent: &AtomicU64) -> Option<()> {
    // A small buffer, so that the bytes sent are about the bytes read.
    SockRef::from(&stream).set_send_buffer_size(4096).ok()?;
    stream.set_nodelay(true).ok()?;
    for step in script.steps {
        match step {
            Step::Receive(end) => receive_until(&mut stream, &end).await?,
            Step::Send(bytes) => send(&mut stream, &bytes, sent).await?,
        }
    }
    match end {
        End::Stall => {}
        End::Reset => {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
            return None;
        }
        End::Close => stream.shutdown().await.ok()?,
        End::Trickle(bytes) => {
            for byte in bytes.iter().cycle() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                send(&mut stream, &[*byte], sent).await?;
            }
        }
        End::Repeat(bytes) => {
            let chunk = bytes.repeat(4096_usize.div_ceil(bytes.len()));
            loop {
                send(&mut stream, &chunk, sent).await?;
            }
        }
    }
    // Unread bytes would turn the close into a reset.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.ok()? > 0 {}
    Some(())
}

async fn send(stream: &mut TcpStream, bytes: &[u8], sent: &AtomicU64) -> Option<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = stream.write(rest).await.ok()?;
        sent.fetch_add(len as u64, Ordering::SeqCst);
        rest = &rest[len..];
    }
    Some(())
}

async fn receive_until(stream: &mut TcpStream, end: &[u8]) -> Option<()> {
    let mut last = VecDeque::new();
    while !last.iter().eq(end) {
        last.push_back(stream.read_u8().await.ok()?);
        if last.len() > end.len() {
            last.pop_front();
        }
    }
    Some(())
}

/// Neither text nor a message of any protocol; ends with a line end, for checks that read a line.
pub(crate) const GARBAGE: &[u8] = b"\x93\xfe\x01\x9c\xe7\xff\x1b\xaa\x07\xf1garbage\xd5\x80\r\n";

/// Returns an address without a listener.
pub(crate) fn refusing() -> SocketAddr {
    free_address()
}

// --- real servers -----------------------------------------------------------------------------

/// Returns the path of a program; `None` if it is not installed, which fails in CI.
pub(crate) fn program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from));
    // Debian has a folder for each version of PostgreSQL.
    if let Ok(versions) = fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        let missing = format!("{name} is not installed (Debian package {package})");
        assert!(std::env::var_os("CI").is_none(), "{missing}");
        report_skipped(missing);
    }
    found
}

/// A temporary folder for the files of a server, removed on drop.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("lvs-checks-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A killed test may have left its folder behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a new folder");
        Self { path }
    }

    /// Makes a folder that belongs to a user, if the test runs as root.
    pub(crate) fn of(user: &str) -> Self {
        let folder = Self::new();
        if let Some((uid, gid)) = ids(user) {
            std::os::unix::fs::chown(&folder.path, Some(uid), Some(gid)).expect("as root");
        }
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Makes a command run as a user, if the test runs as root.
pub(crate) fn as_user<'a>(command: &'a mut Command, user: &str) -> &'a mut Command {
    if let Some((uid, gid)) = ids(user) {
        command.uid(uid).gid(gid);
    }
    command
}

/// Returns the IDs of a user; `None` if the test does not run as root.
fn ids(user: &str) -> Option<(u32, u32)> {
    if !rustix::process::getuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a system with users");
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields[0] == user);
    let fields = found.unwrap_or_else(|| panic!("no user {user}"));
    Some((fields[2].parse().expect("a number"), fields[3].parse().expect("a number")))
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn complete(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
}

/// Copies a program, by a process of its own: a process that another test starts meanwhile would have the copy open
/// for writing until it runs its own program, and the copy could not be run.
#[track_caller]
pub(crate) fn copy_program(from: &Path, to: &Path) {
    complete(Command::new("cp").arg(from).arg(to));
}

/// A program in its own process group, which is killed on drop.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a program; its output goes to a file in the folder.
    pub(crate) fn spawn(command: &mut Command, folder: &Folder) -> Self {
        let log = folder.path.join("log");
        let file = File::create(&log).expect("a file of its own");
        let again = file.try_clone().expect("a descriptor");
        command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    /// Waits until the server accepts connections.
    pub(crate) async fn listens_at(&mut self, address: SocketAddr) {
        let started = tokio::time::Instant::now();
        while TcpStream::connect(address).await.is_err() {
            self.assert_runs(started.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until a check of the server succeeds.
    pub(crate) async fn answers(&mut self, check: &impl Check, address: SocketAddr) -> CheckReport {
        let started = tokio::time::Instant::now();
        loop {
            match run(check, address, LONG).await {
                Ok(report) => return report,
                Err(failure) => {
                    let soon = started.elapsed() < LONG;
                    if !soon {
                        println!("{failure}");
                    }
                    self.assert_runs(soon);
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn assert_runs(&mut self, soon: bool) {
        let ended = self.child.try_wait().expect("a child of ours");
        if ended.is_some() || !soon {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            panic!("the server does not start ({ended:?}):\n{log}");
        }
    }

    /// Stops the server (SIGSTOP); the kernel still accepts connections for it.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        // The threads stop one after the other, and the last may still answer.
        for _ in 0..10_000 {
            if self.is_stopped() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the server does not stop");
    }

    fn is_stopped(&self) -> bool {
        let threads =
            fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the process runs");
        threads.flatten().all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // The state follows the name, which may contain any characters.
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        })
    }

    /// Kills the server and its children.
    pub(crate) fn kill(&mut self) {
        // Only before the wait: afterwards another process may have the PID.
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
