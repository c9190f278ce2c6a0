//! The subject: the forwarder of this crate, in a process of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lvs::forward::{Forwarder, UdpForwarder};
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Above what [`idle`](crate::workload::idle) opens; the default would do, too.
const MAX_CONNECTIONS: usize = 10_000;

/// Carries TCP until stdin ends. Says `ready ADDRESS`, and at each line that comes in
/// `accepted N N..`: the connections that each worker was given.
pub(crate) async fn tcp(backends: &[SocketAddr], workers: usize) -> Result<()> {
    let forwarder = Forwarder::bind(([127, 0, 0, 1], 0).into(), balancer(backends)?)?
        .workers(workers)
        .max_connections(MAX_CONNECTIONS);
    let handle = forwarder.handle();
    let address = forwarder.local_addr().context("a forwarder without an address")?;
    let running = tokio::spawn(forwarder.run());
    println!("ready {address}");
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        let accepted = handle.accepted_by_worker();
        let accepted: Vec<_> = accepted.iter().map(u64::to_string).collect();
        println!("accepted {}", accepted.join(" "));
    }
    running.abort();
    Ok(())
}

/// Can it carry UDP?
pub(crate) const HAS_UDP: bool = true;

/// Carries UDP until stdin ends. Says `ready ADDRESS`.
pub(crate) async fn udp(backends: &[SocketAddr], workers: usize) -> Result<()> {
    let forwarder =
        UdpForwarder::bind(([127, 0, 0, 1], 0).into(), balancer(backends)?)?.workers(workers);
    println!("ready {}", forwarder.local_addr());
    let running = tokio::spawn(forwarder.run());
    while BufReader::new(stdin()).lines().next_line().await?.is_some() {}
    running.abort();
    Ok(())
}

fn balancer(backends: &[SocketAddr]) -> Result<Balancer<SocketAddr>> {
    let set = BackendSet::new();
    set.edit(|edit| {
        for &address in backends {
            edit.insert(address)?;
        }
        Ok(())
    })?;
    Ok(Balancer::new(&set, RoundRobin)?)
}
