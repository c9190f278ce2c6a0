//! The client: one process with one thread, which makes the load of one measurement after another.
//!
//! Each line on its stdin is an order. It makes the load of the order, lets it settle, and then counts the
//! completed units and the processor time of all that takes part, between two moments.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum as _;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, stdin};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::accounting::CountedTasks;
use crate::messages::{CLOSE, CLOSED, KEEP, KEPT};
use crate::server::ENDLESS;
use crate::spec::Measure;

/// Clients at a time, of requests and of connections.
const CLIENTS: usize = 64;
/// The load settles for this part of the time of a measurement before it.
const SETTLING: u32 = 5;
/// No answer takes so long, unless it is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The order for a measurement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LoadOrder {
    pub(crate) measure: Measure,
    pub(crate) time: Duration,
    /// Clients use these in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// The processes besides the client whose time is counted.
    pub(crate) processes: Vec<u32>,
}

impl LoadOrder {
    /// Returns the line that [`parse`](Self::parse) reads.
    pub(crate) fn line(&self) -> String {
        let measure = self.measure.to_possible_value();
        let measure = measure.map_or_else(String::new, |value| value.get_name().to_owned());
        let targets: Vec<_> = self.targets.iter().map(ToString::to_string).collect();
        let processes: Vec<_> = self.processes.iter().map(ToString::to_string).collect();
        let (targets, processes) = (targets.join(","), processes.join(","));
        format!("{measure} {} {targets} {processes}", self.time.as_millis())
    }

    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split(' ').collect();
        let &[measure, millis, targets, processes] = fields.as_slice() else {
            bail!("not an order: {line}");
        };
        let measure = Measure::from_str(measure, false).map_err(anyhow::Error::msg)?;
        let targets: Result<_, _> = targets.split(',').map(str::parse).collect();
        let processes: Result<_, _> = processes.split(',').map(str::parse).collect();
        let time = Duration::from_millis(millis.parse()?);
        Ok(Self { measure, time, targets: targets?, processes: processes? })
    }
}

/// What the clients of a measurement share.
#[derive(Debug, Default)]
struct LoadState {
    /// Completed units: requests, connections, octets.
    units: AtomicU64,
    is_over: AtomicBool,
}

impl LoadState {
    fn add(&self, units: u64) {
        // Relaxed: the counter orders nothing but itself.
        self.units.fetch_add(units, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        // Relaxed: a client may make one request more.
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Carries out the orders on stdin until it ends. Prints `ready`, and for each order `done`, the units, the
/// processor time and the time on the clock.
pub(crate) async fn serve(core: usize) -> Result<()> {
    println!("ready");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let (units, cpu, wall) = measure(&LoadOrder::parse(&line)?, core).await?;
        println!("done {units} {cpu} {wall}");
    }
    Ok(())
}

async fn measure(order: &LoadOrder, core: usize) -> Result<(u64, u64, u64)> {
    let state = Arc::new(LoadState::default());
    let mut clients = JoinSet::new();
    let count = if order.measure == Measure::Bulk { 1 } else { CLIENTS };
    for number in 0..count {
        let (state, target) = (Arc::clone(&state), order.targets[number % order.targets.len()]);
        match order.measure {
            Measure::Request => clients.spawn(ask_again(state, target)),
            Measure::Connection => clients.spawn(connect_again(state, target)),
            Measure::Bulk => clients.spawn(download(state, target)),
            Measure::Program | Measure::Flows => bail!("no measure of a load"),
        };
    }
    let tasks = CountedTasks { processes: order.processes.clone(), core };
    sleep(order.time / SETTLING).await;
    let before = tasks.read_first()?;
    let units_before = state.units.load(Ordering::Relaxed);
    sleep(order.time).await;
    let units = state.units.load(Ordering::Relaxed) - units_before;
    let (cpu, wall) = tasks.read_last()?.since(&before);
    state.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    ensure!(units > 0, "no unit of work was completed");
    Ok((units, cpu, wall))
}

async fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = timeout(ANSWER_TIMEOUT, TcpStream::connect(target)).await;
    let stream = stream.with_context(|| format!("{target} does not answer"))?;
    let stream = stream.with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request after another over one connection, and compares every octet of the answers.
async fn ask_again(state: Arc<LoadState>, target: SocketAddr) -> Result<()> {
    let mut stream = connect(target).await?;
    let mut answer = [0; KEPT.len()];
    while !state.is_over() {
        stream.write_all(KEEP).await.context("cannot send a request")?;
        stream.read_exact(&mut answer).await.context("an answer is incomplete")?;
        ensure!(answer == *KEPT, "an answer differs");
        state.add(1);
    }
    Ok(())
}

/// Makes one connection after another for a request each, and compares every octet and the end.
async fn connect_again(state: Arc<LoadState>, target: SocketAddr) -> Result<()> {
    let mut answer = Vec::with_capacity(2 * CLOSED.len());
    while !state.is_over() {
        let mut stream = connect(target).await?;
        stream.write_all(CLOSE).await.context("cannot send a request")?;
        answer.clear();
        stream.read_to_end(&mut answer).await.context("an answer is incomplete")?;
        ensure!(answer == CLOSED, "{} of {} octets of an answer", answer.len(), CLOSED.len());
        state.add(1);
    }
    Ok(())
}

/// Receives data until the time is up.
async fn download(state: Arc<LoadState>, target: SocketAddr) -> Result<()> {
    let mut stream = connect(target).await?;
    stream.write_all(ENDLESS).await?;
    let mut buffer = vec![0; 256 << 10];
    while !state.is_over() {
        match stream.read(&mut buffer).await? {
            0 => bail!("the data has ended"),
            count => state.add(count as u64),
        }
    }
    Ok(())
}
