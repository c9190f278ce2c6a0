//! The order to the load's process, and the counts that the process returns.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use tokio::net::{TcpSocket, TcpStream};

use super::spec::Id;

/// The order to the load's process.
#[derive(Args, Clone, Debug)]
pub(crate) struct Order {
    pub(super) workload: Id,
    #[arg(required = true)]
    pub(super) targets: Vec<SocketAddr>,
    /// The duration in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub(super) millis: u64,
    /// The number of connections, for workloads with a fixed number.
    #[arg(long, default_value_t = 0)]
    pub(super) amount: u64,
    /// Do little in workloads with a fixed amount.
    #[arg(long = "small")]
    pub(super) is_quick: bool,
}

/// The counts of a load.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Completed units: requests, bytes, datagrams.
    pub(super) units: u64,
    pub(super) lost: u64,
    pub(super) micros: Vec<u32>,
}

impl Order {
    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// Returns the target of a connection or flow, round robin.
    pub(super) fn target(&self, number: usize) -> SocketAddr {
        self.targets[number % self.targets.len()]
    }

    pub(super) async fn connect(&self, number: usize) -> Result<TcpStream> {
        let target = self.target(number);
        let socket = TcpSocket::new_v4()?;
        // Tens of thousands of ports are in use or in TIME_WAIT: four source addresses.
        let host = 1 + (number % 4) as u8;
        socket.bind((Ipv4Addr::new(127, 0, 1, host), 0).into()).context("no source port")?;
        let stream = socket.connect(target).await;
        let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Tally {
    pub(super) fn count(&mut self, micros: u32) {
        self.units += 1;
        self.micros.push(micros);
    }

    pub(super) fn add(&mut self, part: Self) {
        self.units += part.units;
        self.lost += part.lost;
        self.micros.extend(part.micros);
    }

    pub(super) fn quantile(&self, part: f64) -> u32 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get((last as f64 * part) as usize).copied().unwrap_or(0)
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn clock() -> Instant {
    Instant::now()
}

pub(super) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
