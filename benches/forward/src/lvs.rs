//! The subject process with the forwarder of this crate.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use lvs::forward::{Forwarder, UdpForwarder};
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

/// Above the number of connections of [`idle`](crate::workload::idle).
const MAX_CONNECTIONS: usize = 10_000;

/// Forwards TCP until stdin ends. Prints `ready ADDRESS`, and for each line on stdin `accepted N N..`:
/// the connections that each worker thread has accepted.
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

/// Whether this crate has a UDP forwarder.
pub(crate) const HAS_UDP: bool = true;

/// Forwards UDP until stdin ends. Prints `ready ADDRESS`.
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
    Ok(Balancer::new(&set, RoundRobin::new())?)
}
