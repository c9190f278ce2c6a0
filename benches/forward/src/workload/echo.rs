//! W5a and W5b: small datagrams and their echoes; 64 flows with one in flight, 4 flows with 32.
//!
//! Every datagram has its place in its flow's window and a number: only its own echo counts. One
//! that has not come back after a while is given up, counted as lost and sent anew.

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

const PATIENCE: Duration = Duration::from_millis(50);
const LENGTH: usize = 64;

/// Sends until the time is up; what is in flight then is waited for.
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

/// A datagram on its way: its number, and when it left. `None` when its place has ended.
type Place = Option<(u32, Instant)>;

async fn flow(order: Order, number: usize, window: u32) -> Result<Tally> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(order.target(number)).await?;
    let mut tally = Tally::default();
    let mut next = 0;
    let end = clock() + order.time();
    let mut places: Vec<Place> = Vec::new();
    for i in 0..window {
        places.push(Some((next, clock())));
        send(&socket, i, next).await?;
        next += 1;
    }
    while places.iter().any(Option::is_some) {
        let mut buffer = [0; LENGTH + 1];
        let Ok(received) = timeout(PATIENCE, socket.recv(&mut buffer)).await else {
            let now = clock();
            for i in 0..window {
                let place = &mut places[i as usize];
                tally.lost += u64::from(place.take().is_some());
                if now < end {
                    *place = Some((next, now));
                    send(&socket, i, next).await?;
                    next += 1;
                }
            }
            continue;
        };
        ensure!(received.context("no echo")? == LENGTH, "an echo of another length");
        let (i, echoed) = parse(&buffer);
        let place = places.get_mut(i as usize).context("an echo of nothing that was sent")?;
        let Some((awaited, sent)) = *place else { continue };
        if awaited != echoed {
            // Given up too early: its successor is on its way.
            continue;
        }
        let now = clock();
        tally.count(micros(now - sent));
        *place = None;
        if now < end {
            *place = Some((next, now));
            send(&socket, i, next).await?;
            next += 1;
        }
    }
    Ok(tally)
}

async fn send(socket: &UdpSocket, place: u32, number: u32) -> Result<()> {
    let mut datagram = [0x55; LENGTH];
    datagram[..4].copy_from_slice(&place.to_be_bytes());
    datagram[4..8].copy_from_slice(&number.to_be_bytes());
    socket.send(&datagram).await.context("a datagram was not taken")?;
    Ok(())
}

fn parse(datagram: &[u8; LENGTH + 1]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h, ..] = *datagram;
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}
