//! Many forwarders on the threads of one pool.

use std::net::UdpSocket;
use std::process::{Command, Output};

use lvs::forward::{RunningForwarder, UdpForwarder, WorkerPool};
use lvs::scheduler::RoundRobin;

use crate::fixture::*;

/// The services of each protocol in [`many_services_in_a_process`].
const SERVICES: usize = 100;

/// Runs the other half of a test in a process of its own, whose threads and descriptors can be counted,
/// with a limit of open files.
fn run_in_process(half: &str, limit: usize) -> Output {
    Command::new("sh")
        .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", half, "--ignored", "--nocapture", "--test-threads=1"])
        .env("LVS_TEST_POOL", "1")
        .output()
        .expect("a shell")
}

/// Returns the threads and the open descriptors of this process.
fn threads_and_descriptors() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("procfs").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Starts `count` TCP and `count` UDP forwarders on a pool; returns one of each protocol too.
fn start_services(
    pool: &WorkerPool,
    count: usize,
    target: SocketAddr,
) -> (TcpHandle, SocketAddr, Vec<RunningForwarder>) {
    let set = BackendSet::new();
    set.insert(Spec::new("0", target)).expect("the name is new");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let mut running = Vec::new();
    let mut last = None;
    for _ in 0..count {
        let tcp = Forwarder::bind(LOOPBACK, balancer.clone()).expect("a free port");
        let udp = UdpForwarder::bind(LOOPBACK, balancer.clone()).expect("a free port");
        last = Some((tcp.handle(), udp.local_addr()));
        running.push(tcp.worker_pool(pool).start().expect("descriptors are left"));
        running.push(udp.worker_pool(pool).start().expect("descriptors are left"));
    }
    let (tcp, udp) = last.expect("a service");
    (tcp, udp, running)
}

#[test]
fn idle_services_of_a_pool_cost_a_socket_for_each_of_its_threads() {
    let output = run_in_process("pool::many_services_in_a_process", 4096);
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

#[tokio::test]
#[ignore = "one half of idle_services_of_a_pool_cost_a_socket_for_each_of_its_threads, which starts it"]
async fn many_services_in_a_process() {
    if std::env::var("LVS_TEST_POOL").is_err() {
        return;
    }
    let target = echo(b'a').await;
    let pool = WorkerPool::new(4).expect("four threads");
    let before = threads_and_descriptors();
    let (tcp, udp, running) = start_services(&pool, SERVICES, target);
    let (threads, descriptors) = threads_and_descriptors();
    assert_eq!((threads - before.0, descriptors - before.1), (0, 2 * SERVICES * 4));

    assert_eq!(exchange(&tcp, b"over the pool").await, b'a');
    let client = UdpSocket::bind(LOOPBACK).expect("loopback");
    client.connect(udp).expect("loopback");
    client.send(b"?").expect("loopback");
    tcp.shutdown(Duration::ZERO);
    drop(running);
    until(|| threads_and_descriptors().1 <= before.1 + 1).await;
}

#[test]
fn a_pool_short_of_descriptors_opens_one_socket_a_service() {
    let output = run_in_process("pool::services_with_few_descriptors", 160);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
#[ignore = "one half of a_pool_short_of_descriptors_opens_one_socket_a_service, which starts it"]
async fn services_with_few_descriptors() {
    if std::env::var("LVS_TEST_POOL").is_err() {
        return;
    }
    let target = echo(b'a').await;
    let pool = WorkerPool::new(8).expect("eight threads");
    let before = threads_and_descriptors();
    // A quarter of the limit is 40: two and a half services of each protocol have 16 sockets.
    let (tcp, _, running) = start_services(&pool, 10, target);
    assert_eq!(threads_and_descriptors().1 - before.1, 5 * 8 + 15);
    for _ in 0..8 {
        assert_eq!(exchange(&tcp, b"").await, b'a');
    }
    drop(running);
}
