//! W1: small requests over 50 connections that stay, one in flight on each.
//!
//! What a forwarder does for a request: take it in and pass it on, and the same with the answer.

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

/// Asks until the time is up; each request that was begun is waited for, and every byte compared.
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
        stream.write_all(KEEP).await.context("a request was not taken")?;
        stream.read_exact(&mut answer).await.context("a request was not answered")?;
        ensure!(answer == *KEPT, "a request was answered wrongly");
        let asked = std::mem::replace(&mut now, clock());
        tally.count(micros(now - asked));
    }
    Ok(tally)
}
