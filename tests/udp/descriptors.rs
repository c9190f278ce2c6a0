//! A process without free descriptors.

use std::net::{SocketAddr, UdpSocket};

use crate::world::*;

/// Passes the backend's address to the process that [`new_flows_end_idle_ones_while_there_are_no_descriptors`]
/// starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_UDP_BACKEND";

#[tokio::test(flavor = "multi_thread")]
async fn new_flows_end_idle_ones_while_there_are_no_descriptors() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let echo = Echo::new(b'a');
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "descriptors::process_with_few_descriptors", "--ignored", "--nocapture"])
        .env(BACKEND_VARIABLE, echo.address.to_string())
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
            .expect("a line of the child with the key")
    };
    let address: SocketAddr = value("listening on ").parse().expect("an address");
    let first = client_at("127.0.0.1:0", address);
    assert_eq!(exchange(&first, b"?"), b'a');
    let crowd: Vec<UdpSocket> = (0..60).map(|_| client_at("127.0.0.1:0", address)).collect();
    // Each is answered: the flow that has been idle longest ends for a new one.
    for client in &crowd {
        assert_eq!(exchange(client, b"?"), b'a');
    }
    assert_eq!(exchange(&first, b"!"), b'a');
    drop(child.stdin.take());
    let dropped: u64 = value("dropped ").parse().expect("a number");
    let evicted: u64 = value("evicted ").parse().expect("a number");
    assert_eq!(dropped, 0);
    assert!(evicted > 0, "too few clients to use up the descriptors");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "started by new_flows_end_idle_ones_while_there_are_no_descriptors"]
async fn process_with_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = forwarder_to(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder);
    println!("\nlistening on {}", handle.local_addr());
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("no panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("dropped {}", counters.shed.sum());
    println!("evicted {}", counters.flows_ended.evicted);
}
