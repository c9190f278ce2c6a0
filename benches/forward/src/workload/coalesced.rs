//! W5c: datagrams of 1200 bytes in one direction, as QUIC sends them: 16 in one call
//! (`UDP_SEGMENT`), received coalesced (`UDP_GRO`).
//!
//! On loopback such a call stays one buffer until a socket takes it that did not ask for coalesced
//! datagrams: that is what a forwarder may gain. The sink tells the source how far it has come, so
//! that no more than [`WINDOW`] calls of a flow are on their way; these answers are small, one for
//! some 16 datagrams, and part of what the forwarder carries. What was lost was not delivered and
//! is not in the figure's unit; how much it was is reported.

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
/// How many calls of a flow may be on their way.
const WINDOW: u64 = 8;
const PATIENCE: Duration = Duration::from_millis(20);
/// So long in sequence nothing comes: the subject does not carry.
const STALLS: u32 = 50;

/// Sends until the time is up, then waits for what is on its way.
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
    // Numbers of datagrams: how many were sent, which was the last to arrive, how many did.
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
            socket.send(&batch).await.context("a batch was not taken")?;
        }
        if last == sent {
            break;
        }
        let mut answer = [0; 16];
        match timeout(PATIENCE, socket.recv(&mut answer)).await {
            Ok(received) => {
                ensure!(received.context("no answer")? == answer.len(), "a strange answer");
                let (newest, count) = parse(answer);
                last = last.max(newest);
                arrived = arrived.max(count);
                stalls = 0;
            }
            // The last ones of a window were lost, or the answer was.
            Err(_) if is_over => break,
            Err(_) => {
                last = sent;
                stalls += 1;
            }
        }
        if stalls >= STALLS {
            bail!("nothing arrives: {arrived} datagrams of {sent}");
        }
    }
    Ok(Tally { units: arrived, lost: sent.saturating_sub(arrived), ..Tally::default() })
}

/// The backend's side: counts what comes from each address. Short datagrams, which are no part of a
/// batch, it sends back.
pub(crate) async fn sink(socket: UdpSocket) {
    #[derive(Default)]
    struct Flow {
        newest: u64,
        arrived: u64,
        told: u64,
    }
    // Bounded by what one run can send from; a new run is a new process.
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut buffer = vec![0; 1 << 16];
    while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
        if length % LENGTH != 0 || length == 0 {
            let _ = socket.send_to(&buffer[..length.min(64)], source).await;
            continue;
        }
        let flow = flows.entry(source).or_default();
        let last = &buffer[length - LENGTH..];
        let Some(number) = last.first_chunk().map(|it| u64::from_be_bytes(*it)) else { continue };
        if number < flow.newest && number <= BATCH as u64 {
            // The address is another flow's now.
            *flow = Flow::default();
        }
        flow.newest = flow.newest.max(number);
        flow.arrived += (length / LENGTH) as u64;
        if flow.arrived - flow.told >= BATCH as u64 || number.is_multiple_of(BATCH as u64) {
            flow.told = flow.arrived;
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
