//! W2: one request a connection, 50 at a time.
//!
//! A forwarder accepts, picks a backend, connects, relays a request and its answer, and passes on both
//! ends. The backend closes first.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::order::{Order, Tally, clock, micros};
use super::spec::{Id, TCP, Unit, Workload};
use crate::messages::{CLOSE, CLOSED};
use crate::traffic::Traffic;

pub(crate) const WORKLOAD: Workload = Workload {
    id: Id::W2,
    title: "one request a connection, 50 at a time",
    unit: Unit { name: "CPU us/connection", nanos: 1e3, rate: "connections/s", rate_scale: 1.0 },
    traffic: Traffic::Tcp,
    subjects: TCP,
};

const CLIENTS: usize = 50;

/// Makes one connection after another until the time is up; waits for each connection, and compares
/// every byte and the end.
pub(super) async fn load(order: &Order) -> Result<Tally> {
    let mut clients = JoinSet::new();
    for i in 0..CLIENTS {
        clients.spawn(client(order.clone(), i));
    }
    let mut tally = Tally::default();
    while let Some(part) = clients.join_next().await {
        tally.add(part??);
    }
    Ok(tally)
}

async fn client(order: Order, mut number: usize) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut answer = Vec::with_capacity(2 * CLOSED.len());
    let mut now = clock();
    let end = now + order.time();
    while now < end {
        let mut stream = order.connect(number).await?;
        // Round robin over the backends if there is no forwarder.
        number += 1;
        stream.write_all(CLOSE).await.context("cannot send a request")?;
        answer.clear();
        stream.read_to_end(&mut answer).await.context("an answer is incomplete")?;
        ensure!(answer == CLOSED, "{} of {} bytes of an answer", answer.len(), CLOSED.len());
        drop(stream);
        let asked_at = std::mem::replace(&mut now, clock());
        tally.count(micros(now - asked_at));
    }
    Ok(tally)
}
