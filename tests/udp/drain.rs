//! Drain and shutdown.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lvs::backend::Members;
use lvs::forward::{DrainReport, UdpForwarder};
use lvs::scheduler::{CompileError, PickContext, Picker, Scheduler};
use lvs::{BackendSet, Balancer, Spec};

use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn drain_keeps_flows_and_starts_none() {
    let echo = Echo::new(b'a');
    let (_set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder.idle_timeout(Duration::from_millis(300)));
    let client_socket = client(&handle);
    assert_eq!(exchange(&client_socket, b"?"), b'a');
    handle.shutdown(TEST_TIMEOUT);
    assert_eq!(exchange(&client_socket, b"still here"), b'a');
    client(&handle).send(b"?").expect("loopback");
    until(|| handle.counters().shed.draining == 1);
    let report = running.await.expect("no panic").expect("no error");
    assert_eq!((report.finished, report.cut), (1, 0));
    assert_eq!(handle.counters().flows_ended.idle, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_before_run_ends_run_at_once() {
    let (_set, forwarder) = forwarder_to(&[]);
    forwarder.handle().shutdown(TEST_TIMEOUT);
    assert_eq!(forwarder.run().await.expect("no error"), DrainReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_run_cuts_flows_and_frees_the_address() {
    let echo = Echo::new(b'a');
    let (set, forwarder) = forwarder_to(&[echo.address]);
    let (handle, running) = start(forwarder);
    assert_eq!(exchange(&client(&handle), b"?"), b'a');
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    until(|| handle.counters().flows_ended.cut == 1);
    assert_eq!((handle.counters().flows_active, load(&set, "0").total()), (0, 0));
    until(|| UdpSocket::bind(handle.local_addr()).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_keeps_the_servers_of_clients() {
    let echoes = [b'a', b'b', b'c'].map(Echo::new);
    let (_set, route) = route_to(&echoes.each_ref().map(|echo| echo.address));
    let listen = unused_address().parse().expect("an address");
    let forwarder = UdpForwarder::bind(listen, route.clone()).expect("a free port").workers(2);
    let (mut handle, running) = start(forwarder);
    let mut all_running = vec![running];
    let clients: Vec<_> = (0..12).map(|_| client(&handle)).collect();
    let servers: Vec<_> = clients.iter().map(|client| exchange(client, b"?")).collect();
    // The second successor learns from the first one, which no client has sent to.
    for silent in [true, false] {
        let sockets = handle.sockets().expect("descriptors");
        let successor =
            UdpForwarder::from_sockets(sockets.into_iter().map(UdpSocket::from), route.clone());
        let successor = successor.expect("open sockets").keep_flows_of(&handle);
        let successor_handle = successor.handle();
        all_running.push(tokio::spawn(successor.start().expect("it starts")));
        handle.hand_over(TEST_TIMEOUT);
        handle = successor_handle;
        if !silent {
            let now: Vec<_> = clients.iter().map(|client| exchange(client, b"!")).collect();
            assert_eq!(now, servers);
        }
    }
    // Another client is not bound: round robin goes on.
    exchange(&client(&handle), b"?");
    assert_eq!(handle.counters().flows_started, 13);
    all_running.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Picks the first backend; the first pick of all panics.
#[derive(Debug)]
struct PanicsOnce(Arc<AtomicBool>);

impl Scheduler for PanicsOnce {
    fn name(&self) -> &str {
        "panics_once"
    }

    fn compile(
        &self,
        _: &Members,
        _: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}

impl Picker for PanicsOnce {
    fn pick(&self, _: &mut PickContext<'_>) -> Option<usize> {
        assert!(self.0.swap(true, Ordering::Relaxed), "the first pick");
        Some(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_starts_again() {
    let echo = Echo::new(b'a');
    let set = BackendSet::new();
    set.insert(Spec::new("a", echo.address)).expect("a new name");
    let balancer = Balancer::new(&set, PanicsOnce(Arc::default())).expect("any set");
    let listen = unused_address().parse().expect("an address");
    let forwarder = UdpForwarder::bind(listen, balancer).expect("a free port").workers(1);
    let (handle, running) = start(forwarder);
    let client = client(&handle);
    client.send(b"lost").expect("loopback");
    until(|| handle.worker_restarts() == 1);
    assert_eq!(exchange(&client, b"?"), b'a');
    // The lost datagram is in no sum.
    running.abort();
}
