//! A process that runs out of descriptors.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::world::*;

/// Names the backend to the process that [`descriptors_run_out_and_come_back`] starts.
const BACKEND_VARIABLE: &str = "LVS_TEST_UDP_BACKEND";

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_run_out_and_come_back() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let echo = Echo::new(b'a');
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "descriptors::a_process_of_few_descriptors", "--ignored", "--nocapture"])
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
            .expect("the child says so")
    };
    let address: SocketAddr = value("listening on ").parse().expect("an address");
    let first = client_at("127.0.0.1:0", address);
    assert_eq!(exchange(&first, b"?"), b'a');
    let crowd: Vec<UdpSocket> = (0..60).map(|_| client_at("127.0.0.1:0", address)).collect();
    for one in &crowd {
        one.send(b"?").expect("loopback");
    }
    // Whoever has a flow keeps it; and when the others' have run out there is room again.
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
    assert!(short > 0, "the crowd was too small to matter");
    assert!(child.wait().expect("the child").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "one half of descriptors_run_out_and_come_back, which starts it"]
async fn a_process_of_few_descriptors() {
    let Ok(backend) = std::env::var(BACKEND_VARIABLE) else { return };
    let (_set, forwarder) = world(&[backend.parse().expect("an address")]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(500)));
    println!("\nlistening on {}", handle.local_addr());
    let input = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    input.await.expect("no panic").expect("closed by the parent");
    let (_, counters) = end(&handle, running).await;
    println!("short of descriptors {}", counters.shed.no_resources);
}
