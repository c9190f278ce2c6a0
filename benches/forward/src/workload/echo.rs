//! W5a and W5b: small datagrams and their echoes; 64 flows with one in flight, 4 flows with 32.
//!
//! Every datagram has a slot in the window of its flow, and a number: only its own echo counts. A
//! datagram whose echo does not arrive within [`ECHO_TIMEOUT`] is counted as lost and sent anew.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::order::{Order, Tally, clock, micros};
use super::spec::{Id, UDP, Unit, Workload};
use crate::traffic::Traffic;

const UNIT: Unit =
    Unit { name: "CPU us/round trip", nanos: 1e3, rate: "round trips/s", rate_scale: 1.0 };

pub(crate) const FLOWS_64: Workload = Workload {
    id: Id::W5a,
    title: "UDP echo, 64 flows with 1 in flight",
    unit: UNIT,
    traffic: Traffic::Echo,
    subjects: UDP,
};
pub(crate) const FLOWS_4: Workload =
    Workload { id: Id::W5b, title: "UDP echo, 4 flows with 32 in flight", ..FLOWS_64 };

const ECHO_TIMEOUT: Duration = Duration::from_millis(50);
const LENGTH: usize = 64;

/// Sends until the time is up, then waits for the datagrams in flight.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let (flows, window) = if order.workload == Id::W5b { (4, 32) } else { (64, 1) };
    let mut clients = JoinSet::new();
    for i in 0..flows {
        clients.spawn(flow(order.clone(), i, window));
    }
    let mut tally = Tally::default();
    while let Some(part) = clients.join_next().await {
        tally.add(part??);
    }
    Ok(tally)
}

/// A datagram in flight: its number, and when it was sent. `None` once the slot is not used any more.
type Slot = Option<(u32, Instant)>;

async fn flow(order: Order, number: usize, window: u32) -> Result<Tally> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(order.target(number)).await?;
    let mut tally = Tally::default();
    let mut next = 0;
    let end = clock() + order.time();
    let mut slots: Vec<Slot> = Vec::new();
    for i in 0..window {
        slots.push(Some((next, clock())));
        send(&socket, i, next).await?;
        next += 1;
    }
    while slots.iter().any(Option::is_some) {
        let mut buffer = [0; LENGTH + 1];
        let Ok(received) = timeout(ECHO_TIMEOUT, socket.recv(&mut buffer)).await else {
            let now = clock();
            for i in 0..window {
                let slot = &mut slots[i as usize];
                tally.lost += u64::from(slot.take().is_some());
                if now < end {
                    *slot = Some((next, now));
                    send(&socket, i, next).await?;
                    next += 1;
                }
            }
            continue;
        };
        ensure!(received.context("cannot receive an echo")? == LENGTH, "an echo of another length");
        let (i, echoed) = parse(&buffer);
        let slot = slots.get_mut(i as usize).context("an echo of a datagram that was not sent")?;
        let Some((awaited, sent)) = *slot else { continue };
        if awaited != echoed {
            // The echo is late: the datagram was sent anew.
            continue;
        }
        let now = clock();
        tally.count(micros(now - sent));
        *slot = None;
        if now < end {
            *slot = Some((next, now));
            send(&socket, i, next).await?;
            next += 1;
        }
    }
    Ok(tally)
}

async fn send(socket: &UdpSocket, slot: u32, number: u32) -> Result<()> {
    let mut datagram = [0x55; LENGTH];
    datagram[..4].copy_from_slice(&slot.to_be_bytes());
    datagram[4..8].copy_from_slice(&number.to_be_bytes());
    socket.send(&datagram).await.context("cannot send a datagram")?;
    Ok(())
}

fn parse(datagram: &[u8; LENGTH + 1]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h, ..] = *datagram;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
