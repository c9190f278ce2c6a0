//! A forwarder in a process that runs out of descriptors.

use crate::fixture::*;

/// The environment variable with the backend for the process that
/// [`clients_wait_while_there_are_no_descriptors_for_them`] starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_BACKEND";

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_wait_while_there_are_no_descriptors_for_them() {
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
    // Each client keeps its connection until it is served, so most of them wait in the kernel's queue.
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..60 {
        clients.spawn(async move { TcpStream::connect(address).await?.read_u8().await });
    }
    let served = tokio::time::timeout(TEST_TIMEOUT, clients.join_all()).await;
    for name in served.expect("every client is served") {
        assert_eq!(name.expect("no client is reset"), b'a');
    }

    drop(child.stdin.take());
    let refused: u64 = value("refused ").parse().expect("a number");
    let failed_accepts: u64 = value("failed accepts ").parse().expect("a number");
    assert_eq!(refused, 0);
    assert!(failed_accepts > 0, "there were too few clients for a shortage");
    assert!(failed_accepts < 100, "{failed_accepts} failed accepts: the worker does not back off");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "one half of clients_wait_while_there_are_no_descriptors_for_them, which starts it"]
async fn forwarder_with_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = forwarder_to(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder);
    println!("\nlistening on {}", address_of(&handle));
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("the task does not panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("refused {}", counters.refused.sum());
    println!("failed accepts {}", counters.failed_accepts);
}
