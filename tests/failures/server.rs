//! A web server as a process, which can be killed, stopped, and switched to slow or error answers.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The time of a slow answer: longer than the timeout of a check, shorter than that of a client.
const SLOW: Duration = Duration::from_secs(1);

/// The body of a slow answer.
pub(crate) const SLOWLY: &str = "slowly\n";

/// How a server behaves.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(crate) enum Mode {
    Slow = 1,
    Errors = 2,
}

/// The environment variable that makes the test program a server.
const ROLE: &str = "LVS_TEST_SERVER";
const ANNOUNCED: &str = "serving at ";

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "server::run_server", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test program can be started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        // The test harness may have printed the start of the line.
        let mut lines = output.lines().map(|line| line.expect("text"));
        let address = lines.find_map(|line| Some(line.split_once(ANNOUNCED)?.1.parse()));
        let address = address.expect("the server prints its address").expect("an address");
        Self { child, address }
    }

    /// Kills the server, and returns when its process has ended.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        while self.child.try_wait().expect("the server is a child process").is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) async fn set(&self, mode: Mode) {
        let mut stream = TcpStream::connect(self.address).await.expect("the server runs");
        let request = format!("GET /mode/{} HTTP/1.0\r\n\r\n", mode as u8);
        stream.write_all(request.as_bytes()).await.expect("the connection is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server answers");
        assert!(answer.contains("200 OK"), "{answer}");
    }

    fn signal(&self, signal: Signal) {
        // The child is reaped after a kill or in `drop`, so its process id is not reused yet.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("the server is a child process");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the server if a test has started this process for it; not a test.
#[test]
fn run_server() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
        println!("{ANNOUNCED}{}", listener.local_addr().expect("bound"));
        // Exits if the test program is killed.
        std::thread::spawn(|| {
            let _ = std::io::stdin().lines().count();
            std::process::exit(0);
        });
        let mode = Arc::new(AtomicU8::new(0));
        let app = Router::new().route("/mode/{mode}", get(set)).fallback(answer).with_state(mode);
        axum::serve(listener, app).await.expect("the server runs");
    });
}

async fn set(State(mode): State<Arc<AtomicU8>>, Path(new): Path<u8>) {
    mode.store(new, Ordering::SeqCst);
}

async fn answer(State(mode): State<Arc<AtomicU8>>) -> (StatusCode, &'static str) {
    match mode.load(Ordering::SeqCst) {
        1 => {
            tokio::time::sleep(SLOW).await;
            return (StatusCode::OK, SLOWLY);
        }
        2 => return (StatusCode::INTERNAL_SERVER_ERROR, "broken\n"),
        _ => {}
    }
    (StatusCode::OK, "well\n")
}
