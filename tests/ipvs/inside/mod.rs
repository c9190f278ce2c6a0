//! Tests within a kernel that has IPVS, each in a network namespace of its own. They are judged by the
//! kernel's files and by Debian's `ipvsadm`.

mod control;
mod counters;
mod destinations;
#[cfg(feature = "director")]
mod director;
#[cfg(feature = "director")]
mod imported;
#[cfg(feature = "director")]
mod lost;
#[cfg(feature = "director")]
mod mark;
#[cfg(feature = "director")]
mod pair;
#[cfg(feature = "director")]
mod pitfalls;
mod reconcile;
mod refusals;
#[cfg(feature = "director")]
mod restart;
mod services;
pub(crate) mod sync;
pub(crate) mod traffic;
#[cfg(feature = "director")]
mod virtual_address;
#[cfg(feature = "director")]
pub(crate) mod wire;

use std::fs;
use std::io::Read as _;
use std::process::{Child, Command};

use lvs::ipvs::{IpvsClient, IpvsService, IpvsServiceKey};

/// Reads a file of the network namespace that this thread is in.
///
/// In one piece where it fits: between two reads the kernel finds its place in the list of services by
/// counting those of its namespace, while it reads it counts those of all, and so leaves some out.
fn proc_net(name: &str) -> String {
    let path = format!("/proc/thread-self/net/{name}");
    let mut file = fs::File::open(path).expect("a readable file");
    let (mut text, mut buffer) = (Vec::new(), [0; 1 << 16]);
    loop {
        match file.read(&mut buffer).expect("a readable file") {
            0 => return String::from_utf8(text).expect("text"),
            length => text.extend(&buffer[..length]),
        }
    }
}

/// Runs `ipvsadm`, which must succeed, and returns what it prints.
pub(crate) fn ipvsadm(arguments: &str) -> String {
    run("ipvsadm", arguments)
}

/// Runs a program, which must succeed, and returns what it prints.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {text}{error}");
    text
}

/// Returns the lines that `ipvsadm-save -n` writes, in order.
fn saved() -> Vec<String> {
    let mut lines: Vec<_> =
        ipvsadm("-S -n").lines().map(|line| line.trim_end().to_owned()).collect();
    lines.sort();
    lines
}

pub(crate) fn client() -> IpvsClient {
    IpvsClient::open().expect("the module is loaded")
}

pub(crate) fn tcp(address: &str) -> IpvsServiceKey {
    IpvsServiceKey::tcp(address.parse().expect("an address"))
}

fn udp(address: &str) -> IpvsServiceKey {
    IpvsServiceKey::udp(address.parse().expect("an address"))
}

/// Reads the services that the kernel has, in order.
fn services(ipvs: &mut IpvsClient) -> Vec<IpvsService> {
    let statuses = ipvs.services().expect("a list");
    let mut services: Vec<_> = statuses.into_iter().map(|status| status.service).collect();
    services.sort_by_key(|service| service.key);
    services
}

/// A test of this program that runs in a process of its own, in the network namespace of the thread that
/// starts it; dropped, it is killed.
struct TestProcess(Child);

impl TestProcess {
    /// Starts an ignored test with a variable, without which it does nothing.
    fn start(test: &str, variable: &str, value: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let child =
            Command::new(program).args([test, "--exact", "--ignored"]).env(variable, value).spawn();
        Self(child.expect("this program starts"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("a child");
        self.0.wait().expect("a child");
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is an answer. The time limit of the kernel ends what waits in vain.
pub(crate) fn wait_for<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::yield_now();
    }
}
