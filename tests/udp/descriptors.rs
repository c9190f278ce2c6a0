//! A process without free descriptors.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::world::*;

/// Passes the backend's address to the process that [`descriptor_shortage_ends_when_flows_end`]
/// starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_UDP_BACKEND";

#[tokio::test(flavor = "multi_thread")]
async fn descriptor_shortage_ends_when_flows_end() {
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
    for client in &crowd {
        client.send(b"?").expect("loopback");
    }
    // An existing flow stays usable; when the other flows have expired, a new flow can start.
    assert_eq!(exchange(&first, b"!"), b'a');
    let late = client_at("127.0.0.1:0", address);
    late.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
    let served = || {
        late.send(b"?").expect("loopback");
        match late.recv(&mut [0; 9]) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    };
    until(served);
    drop(child.stdin.take());
    let short: u64 = value("short of descriptors ").parse().expect("a number");
    assert!(short > 0, "too few clients to use up the descriptors");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "started by descriptor_shortage_ends_when_flows_end"]
async fn process_with_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = forwarder_to(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(500)));
    println!("\nlistening on {}", handle.local_addr());
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("no panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("short of descriptors {}", counters.shed.no_resources);
}
