//! A forwarder in a process that runs out of descriptors.

use crate::fixture::*;

/// The environment variable with the backend for the process that
/// [`a_forwarder_recovers_from_a_shortage_of_descriptors`] starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_BACKEND";

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_forwarder_recovers_from_a_shortage_of_descriptors() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 32 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args([
            "--exact",
            "descriptors::forwarder_with_few_descriptors",
            "--ignored",
            "--nocapture",
        ])
        .env(BACKEND_VARIABLE, echo(b'a').await.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut value = |key: &str| {
        lines
            .by_ref()
            .map(|line| line.expect("utf-8"))
            .find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
            .expect("the child prints the value")
    };

    let address: SocketAddr = value("listening on ").parse().expect("an address");
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(TcpStream::connect(address).await);
    }
    // Whether or not they were served, the listener serves later clients.
    drop(clients);
    let served = async {
        loop {
            let name = async { TcpStream::connect(address).await?.read_u8().await };
            if name.await.is_ok_and(|name| name == b'a') {
                return;
            }
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, served).await.expect("served again");

    drop(child.stdin.take());
    let short: u64 = value("short of descriptors ").parse().expect("a number");
    let failed_accepts: u64 = value("failed accepts ").parse().expect("a number");
    assert!(short > 0, "there were too few clients for a shortage");
    assert!(failed_accepts < 100, "{failed_accepts} failed accepts: the worker does not back off");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "one half of a_forwarder_recovers_from_a_shortage_of_descriptors, which starts it"]
async fn forwarder_with_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = forwarder_to(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder);
    println!("\nlistening on {}", address_of(&handle));
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("the task does not panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("short of descriptors {}", counters.failed_accepts + counters.refused.no_resources);
    println!("failed accepts {}", counters.failed_accepts);
}
