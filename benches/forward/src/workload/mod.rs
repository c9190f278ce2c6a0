//! The workloads: what clients do, and what is counted.
//!
//! Each is a file: a description, the clients' side, which runs in a process of its own, and the
//! backends' side where that is special.

pub(crate) mod balance;
pub(crate) mod bulk;
pub(crate) mod coalesced;
mod connection;
mod echo;
pub(crate) mod idle;
mod keepalive;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::process::Child;
use crate::report::Cell;
use crate::subject::{Running, Stage, Subject};

/// The workloads' names.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Id {
    /// Keep-alive, small requests, 50 connections.
    W1,
    /// One request a connection, 50 at a time.
    W2,
    /// Bulk from the server, 1 stream.
    W3a,
    /// Bulk from the server, 8 streams.
    W3b,
    /// Bulk to the server, 1 stream.
    W3c,
    /// Memory of idle connections.
    W4,
    /// UDP echo, 64 flows with 1 in flight.
    W5a,
    /// UDP echo, 4 flows with 32 in flight.
    W5b,
    /// UDP bulk, sent and received coalesced.
    W5c,
    /// How evenly two workers share new connections.
    B,
}

/// What is carried, and to which port of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carried {
    Tcp,
    /// UDP that comes back.
    Echo,
    /// UDP that comes coalesced and does not come back.
    Sink,
}

/// What a workload is and whom it measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) id: Id,
    pub(crate) title: &'static str,
    pub(crate) unit: Unit,
    pub(crate) carried: Carried,
    pub(crate) subjects: &'static [Subject],
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    /// The figure's name: processor time a unit, mostly.
    pub(crate) name: &'static str,
    /// How many nanoseconds the figure's 1 is.
    nanos: f64,
    pub(crate) rate: &'static str,
    /// What a unit a second counts as in the rate.
    rate_scale: f64,
}

const TCP: &[Subject] = &[
    Subject::Direct,
    Subject::Lvs,
    Subject::Haproxy,
    Subject::HaproxyAgain,
    Subject::HaproxySplice,
    Subject::Nginx,
];
const UDP: &[Subject] = &[Subject::Direct, Subject::Lvs, Subject::Nginx, Subject::NginxAgain];

/// All but [`balance`], which compares nobody.
pub(crate) const ALL: [Workload; 9] = [
    keepalive::WORKLOAD,
    connection::WORKLOAD,
    bulk::DOWN_1,
    bulk::DOWN_8,
    bulk::UP_1,
    idle::WORKLOAD,
    echo::FLOWS_64,
    echo::FLOWS_4,
    coalesced::WORKLOAD,
];

/// What the load's process is told to do.
#[derive(Args, Clone, Debug)]
pub(crate) struct Order {
    workload: Id,
    #[arg(required = true)]
    targets: Vec<SocketAddr>,
    /// For how long, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// How many connections, where that is the point.
    #[arg(long, default_value_t = 0)]
    amount: u64,
    /// Do little where the amount is fixed.
    #[arg(long = "small")]
    is_quick: bool,
}

/// What the load has seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// What was carried whole: requests, bytes, datagrams.
    units: u64,
    lost: u64,
    micros: Vec<u32>,
}

impl Order {
    fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// Where the load's part of this number goes.
    fn target(&self, number: usize) -> SocketAddr {
        self.targets[number % self.targets.len()]
    }

    async fn connect(&self, number: usize) -> Result<TcpStream> {
        let target = self.target(number);
        let socket = TcpSocket::new_v4()?;
        // Ports in use or waiting by the ten thousand: more addresses to come from.
        let host = 1 + (number % 4) as u8;
        socket.bind((Ipv4Addr::new(127, 0, 1, host), 0).into()).context("no port to come from")?;
        let stream = socket.connect(target).await;
        let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Tally {
    fn count(&mut self, micros: u32) {
        self.units += 1;
        self.micros.push(micros);
    }

    fn add(&mut self, part: Self) {
        self.units += part.units;
        self.lost += part.lost;
        self.micros.extend(part.micros);
    }

    fn quantile(&self, part: f64) -> u32 {
        let last = self.micros.len().saturating_sub(1);
        self.micros.get((last as f64 * part) as usize).copied().unwrap_or(0)
    }
}

/// The load's process: does what it is told, and says `done` and what it has seen.
pub(crate) async fn load(order: &Order) -> Result<()> {
    let start = clock();
    let mut tally = match order.workload {
        Id::W1 => keepalive::load(order).await,
        Id::W2 | Id::B => connection::load(order).await,
        Id::W3a | Id::W3b | Id::W3c => bulk::load(order).await,
        Id::W4 => idle::load(order).await,
        Id::W5a | Id::W5b => echo::load(order).await,
        Id::W5c => coalesced::load(order).await,
    }?;
    let seconds = clock().saturating_duration_since(start).as_secs_f64();
    tally.micros.sort_unstable();
    let (p50, p99) = (tally.quantile(0.5), tally.quantile(0.99));
    println!("done {} {} {seconds} {p50} {p99}", tally.units, tally.lost);
    Ok(())
}

/// Starts the load on a subject.
pub(crate) fn start_load(
    stage: &Stage,
    running: &Running,
    workload: Id,
    change: impl FnOnce(&mut Order),
) -> Result<Child> {
    let targets = running.targets.clone();
    let mut order = Order { workload, targets, millis: 1000, amount: 0, is_quick: false };
    change(&mut order);
    let name = workload.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned());
    let mut arguments = vec!["load".to_owned(), name];
    arguments.extend(order.targets.iter().map(SocketAddr::to_string));
    arguments.push(format!("--millis={}", order.millis));
    arguments.push(format!("--amount={}", order.amount));
    if order.is_quick {
        arguments.push("--small".to_owned());
    }
    Child::start(&stage.folder, "load", Some(stage.cores.load), arguments)
}

/// One cell: the load on one subject, and the processor time this took the subject.
///
/// Nothing is cut off at either side: the time spans the load's life, its connections' beginning and
/// end included, and so does its count.
pub(crate) async fn measure(
    stage: &Stage,
    workload: &Workload,
    running: &Running,
    time: Duration,
    is_quick: bool,
) -> Result<Cell> {
    let cpu = || running.child.as_ref().map(Child::cpu_nanos).transpose();
    let before = cpu()?;
    let mut load = start_load(stage, running, workload.id, |order| {
        order.millis = time.as_millis() as u64;
        order.is_quick = is_quick;
    })?;
    let line = load.expect("done", time + Duration::from_secs(20)).await?;
    load.finish(Duration::from_secs(5)).await?;
    // The subject may have ends to pass on, still.
    sleep(Duration::from_millis(20)).await;
    let nanos = before.zip(cpu()?).map(|(before, after)| after - before);
    let fields: Result<Vec<f64>, _> = line.split(' ').map(str::parse).collect();
    let Ok(&[units, lost, seconds, p50, p99]) = fields.as_deref() else {
        anyhow::bail!("the load said {line:?}");
    };
    ensure!(units > 0.0, "nothing was carried");
    Ok(Cell {
        cost: nanos.map(|nanos| nanos as f64 / units / workload.unit.nanos),
        rate: units / seconds * workload.unit.rate_scale,
        p50,
        p99,
        lost: lost / (units + lost),
    })
}

#[expect(clippy::disallowed_methods, reason = "a bench is a shell: it reads the clock")]
fn clock() -> Instant {
    Instant::now()
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
