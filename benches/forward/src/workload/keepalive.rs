//! W1: small requests over 50 persistent connections, one in flight on each.
//!
//! A forwarder relays a request and its answer.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::order::{Order, Tally, clock, micros};
use super::spec::{Id, TCP, Unit, Workload};
use crate::messages::{KEEP, KEPT};
use crate::traffic::Traffic;

pub(crate) const WORKLOAD: Workload = Workload {
    id: Id::W1,
    title: "keep-alive, small requests, 50 connections",
    unit: Unit { name: "CPU us/request", nanos: 1e3, rate: "requests/s", rate_scale: 1.0 },
    traffic: Traffic::Tcp,
    subjects: TCP,
};

const CONNECTIONS: usize = 50;

/// Sends requests until the time is up; waits for each answer, and compares every byte.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let mut clients = JoinSet::new();
    for i in 0..CONNECTIONS {
        clients.spawn(client(order.clone(), i));
    }
    let mut tally = Tally::default();
    while let Some(part) = clients.join_next().await {
        tally.add(part??);
    }
    Ok(tally)
}

async fn client(order: Order, number: usize) -> Result<Tally> {
    let mut stream = order.connect(number).await?;
    let mut tally = Tally::default();
    let mut answer = [0; KEPT.len()];
    let mut now = clock();
    let end = now + order.time();
    while now < end {
        stream.write_all(KEEP).await.context("cannot send a request")?;
        stream.read_exact(&mut answer).await.context("an answer is incomplete")?;
        ensure!(answer == *KEPT, "an answer differs");
        let asked_at = std::mem::replace(&mut now, clock());
        tally.count(micros(now - asked_at));
    }
    Ok(tally)
}
