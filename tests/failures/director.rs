//! The program `lvs` as a process.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::{HEALTH, INTERVAL};

pub(crate) struct Director {
    pub(crate) address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    /// Killed on drop.
    _child: Child,
}

impl Director {
    pub(crate) async fn start(servers: &[SocketAddr]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lvs"));
        command.args(["run", "--listen", "127.0.0.1:0", "--scheduler", "rr", "--health", HEALTH]);
        command.args(["--admin", "none"]).arg("--interval").arg(INTERVAL.as_millis().to_string());
        for server in servers {
            command.arg("--server").arg(server.to_string());
        }
        let mut child = command
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("built by `cargo test`");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = loop {
            let line =
                lines.next_line().await.expect("text").expect("the director prints its address");
            if let Some(rest) = line.strip_prefix("listening on http://") {
                let (address, _) = rest.split_once('/').expect("a URL");
                break address.parse().expect("an address");
            }
        };
        Self { address, lines, _child: child }
    }

    /// Waits for the line that marks a server as down or ejected. Cancel safe.
    pub(crate) async fn wait_until_marked(&mut self, failing: SocketAddr) {
        let marks = [format!("server {failing} is down"), format!("server {failing} is ejected")];
        loop {
            let line = self.lines.next_line().await.expect("text").expect("the director runs");
            if marks.iter().any(|mark| line.contains(mark)) {
                return;
            }
        }
    }
}
