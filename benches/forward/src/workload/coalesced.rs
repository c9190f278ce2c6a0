//! W5c: datagrams of 1200 bytes in one direction, as QUIC sends them: 16 in one call
//! (`UDP_SEGMENT`), received coalesced (`UDP_GRO`).
//!
//! On loopback the datagrams of a call stay in one buffer until a socket without `UDP_GRO` receives
//! them: that is what a forwarder can gain. The sink acknowledges datagrams to the source, so that at
//! most [`WINDOW`] calls of a flow are in flight; the acknowledgements are small, one for about 16
//! datagrams, and forwarded as well. Lost datagrams are not in the unit of the figure, but reported.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::order::{Order, Tally, clock};
use super::spec::{Id, UDP, Unit, Workload};
use crate::traffic::Traffic;

pub(crate) const WORKLOAD: Workload = Workload {
    id: Id::W5c,
    title: "UDP bulk, 4 flows, 1200-byte datagrams, 16 a call (GSO)",
    unit: Unit { name: "CPU us/datagram", nanos: 1e3, rate: "datagrams/s", rate_scale: 1.0 },
    traffic: Traffic::Sink,
    subjects: UDP,
};

const FLOWS: usize = 4;
const LENGTH: usize = 1200;
const BATCH: usize = 16;
/// The most calls of a flow in flight.
const WINDOW: u64 = 8;
const ACK_TIMEOUT: Duration = Duration::from_millis(20);
/// After this many consecutive timeouts the run fails.
const MAX_STALLS: u32 = 50;

/// Sends until the time is up, then waits for the datagrams in flight.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let mut sources = JoinSet::new();
    for i in 0..FLOWS {
        sources.spawn(source(order.clone(), i));
    }
    let mut tally = Tally::default();
    while let Some(part) = sources.join_next().await {
        tally.add(part??);
    }
    Ok(tally)
}

async fn source(order: Order, number: usize) -> Result<Tally> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    setsockopt(&socket, sockopt::UdpGsoSegment, &(LENGTH as i32)).context("UDP_SEGMENT")?;
    socket.connect(order.target(number)).await?;
    let mut batch = vec![0x55; LENGTH * BATCH];
    // Numbers of datagrams: the last sent, the last that arrived, and the count of those that arrived.
    let (mut sent, mut last, mut arrived) = (0, 0, 0);
    let mut stalls = 0;
    let end = clock() + order.time();
    loop {
        let is_over = clock() >= end;
        while !is_over && sent - last < WINDOW * BATCH as u64 {
            for datagram in batch.chunks_mut(LENGTH) {
                sent += 1;
                datagram[..8].copy_from_slice(&sent.to_be_bytes());
            }
            socket.send(&batch).await.context("cannot send a batch")?;
        }
        if last == sent {
            break;
        }
        let mut answer = [0; 16];
        match timeout(ACK_TIMEOUT, socket.recv(&mut answer)).await {
            Ok(received) => {
                ensure!(
                    received.context("cannot receive an acknowledgement")? == answer.len(),
                    "an acknowledgement of another length"
                );
                let (newest, count) = parse(answer);
                last = last.max(newest);
                arrived = arrived.max(count);
                stalls = 0;
            }
            // The last datagrams of a window were lost, or the acknowledgement was.
            Err(_) if is_over => break,
            Err(_) => {
                last = sent;
                stalls += 1;
            }
        }
        if stalls >= MAX_STALLS {
            bail!("nothing arrives: {arrived} datagrams of {sent}");
        }
    }
    Ok(Tally { units: arrived, lost: sent.saturating_sub(arrived), ..Tally::default() })
}

/// The backend's side: counts the datagrams of each address. Short datagrams, which are not part of a
/// batch, are sent back.
pub(crate) async fn sink(socket: UdpSocket) {
    #[derive(Default)]
    struct Flow {
        newest: u64,
        arrived: u64,
        acknowledged: u64,
    }
    // Bounded by the source addresses of one run; a new run is a new process.
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
        if length % LENGTH != 0 || length == 0 {
            let _ = socket.send_to(&buffer[..length.min(64)], source).await;
            continue;
        }
        let flow = flows.entry(source).or_default();
        let last = &buffer[length - LENGTH..];
        let Some(number) = last.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            continue;
        };
        if number < flow.newest && number <= BATCH as u64 {
            // The address belongs to a new flow.
            *flow = Flow::default();
        }
        flow.newest = flow.newest.max(number);
        flow.arrived += (length / LENGTH) as u64;
        if flow.arrived - flow.acknowledged >= BATCH as u64 || number.is_multiple_of(BATCH as u64) {
            flow.acknowledged = flow.arrived;
            let mut answer = [0; 16];
            answer[..8].copy_from_slice(&flow.newest.to_be_bytes());
            answer[8..].copy_from_slice(&flow.arrived.to_be_bytes());
            let _ = socket.send_to(&answer, source).await;
        }
    }
}

fn parse(answer: [u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(answer);
    ((both >> 64) as u64, both as u64)
}
