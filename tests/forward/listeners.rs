//! Listeners, and the distribution of connections over workers.

use lvs::scheduler::RoundRobin;

use crate::fixture::*;

#[tokio::test]
async fn the_kernel_distributes_connections_over_the_workers() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.workers(2));
    for _ in 0..400 {
        assert_eq!(exchange(&handle, b"").await, b'a');
    }
    let shares = handle.accepted_by_worker();
    assert_eq!(shares.iter().sum::<u64>(), 400);
    // A fair coin gives fewer than 100 of 400 once in 10^24 runs.
    assert!(shares.len() == 2 && shares.iter().all(|share| *share > 100), "{shares:?}");
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 400);
}

#[tokio::test]
async fn an_existing_listener_is_shared_by_all_workers() {
    let set = BackendSet::new();
    set.insert(Spec::new("0", echo(b'a').await)).expect("the name is new");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let listener = std::net::TcpListener::bind(LOOPBACK).expect("loopback");
    let forwarder = Forwarder::new(listener, balancer).expect("a listener").workers(3);
    let (handle, running) = start(forwarder);
    for _ in 0..30 {
        assert_eq!(exchange(&handle, b"shared").await, b'a');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 30);
}

#[tokio::test]
async fn connections_of_a_unix_socket_are_proxied() {
    let folder = std::env::temp_dir().join(format!("lvs-forward-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("front.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("the path is free");
    let set = BackendSet::new();
    set.insert(Spec::new("0", echo(b'a').await)).expect("the name is new");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let forwarder = Forwarder::from_unix_listener(listener, balancer).expect("a listener");
    assert_eq!(forwarder.local_addr(), None);
    let (handle, running) = start(forwarder);
    let mut stream = tokio::net::UnixStream::connect(&path).await.expect("listening");
    let data = vec![5; 1 << 20];
    let (mut reads, mut writes) = stream.split();
    let send = async {
        writes.write_all(&data).await.expect("the stream is open");
        writes.shutdown().await.expect("the stream is open");
    };
    let mut got = Vec::new();
    let (read, ()) = tokio::join!(reads.read_to_end(&mut got), send);
    read.expect("the stream ends in order");
    assert!(got[0] == b'a' && got[1..] == data);
    drop(stream);
    let (_, counters) = end(&handle, running).await;
    assert_eq!(counters.finished, 1);
    std::fs::remove_dir_all(folder).expect("the folder exists");
}

#[tokio::test]
async fn an_address_can_be_bound_before_the_machine_has_it() {
    // An address for documentation (RFC 5737), which no machine has.
    let address = "203.0.113.200:8080".parse().expect("an address");
    let set = BackendSet::new();
    set.insert(Spec::new("0", echo(b'a').await)).expect("the name is new");
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    Forwarder::bind(address, balancer.clone()).expect_err("the machine does not have the address");
    let forwarder =
        Forwarder::bind_nonlocal(address, balancer).expect("the machine need not have the address");
    let (handle, running) = start(forwarder.workers(2));
    assert_eq!(handle.local_addr(), Some(address));
    end(&handle, running).await;
}
