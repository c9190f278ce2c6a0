//! What many services of one director cost while they are idle, and what one service at full load does
//! to another.
//!
//! ```text
//! cargo bench --bench services
//! cargo bench --bench services -- --services 500 --workers 2 --workers 32
//! ```
//! Starts a director with this many TCP services, and prints its threads, its descriptors and the time
//! until all listen. Then measures new connections of one service, one every two milliseconds, while
//! the other services are idle, and while clients of another service send requests without a pause over
//! connections that stay open. All of it on loopback and in this process: the clients and the servers
//! need processor time too, so only the ratio of the two latencies says something.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::Parser;
use lvs::director::{Director, DirectorConfig};
use lvs::forward::raise_descriptor_limit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Measures a director with many services.
#[derive(Debug, Parser)]
struct Args {
    /// The number of services.
    #[arg(long, default_value_t = 500)]
    services: usize,
    /// The number of worker threads; repeat it to measure several. Default: one for each core, and 32.
    #[arg(long)]
    workers: Vec<usize>,
    /// The connections that keep a service at full load.
    #[arg(long, default_value_t = 64)]
    load: usize,
    /// Seconds for each of the two latencies.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Passed by `cargo bench`. Without it, as in `cargo test`, the run is short.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() {
    let mut args = Args::parse();
    if !args.bench {
        args.services = args.services.min(20);
        args.seconds = 1;
    }
    if args.workers.is_empty() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        args.workers = vec![cores, 32];
    }
    raise_descriptor_limit().expect("up to the maximum, a process may raise its limit");
    let server = echo().await;
    println!(
        "workers,services,start_ms,threads,descriptors,idle_p50_us,idle_p99_us,loaded_p50_us,\
         loaded_p99_us,loaded_requests_per_s"
    );
    for workers in &args.workers {
        measure(&args, *workers, server).await;
    }
}

async fn measure(args: &Args, workers: usize, server: SocketAddr) {
    let mut text = format!("workers = {workers}\n");
    for number in 0..args.services {
        let _ = writeln!(
            text,
            "[[service]]\nname = \"s{number}\"\nlisten = \"127.0.0.1:0\"\n\
             [[service.server]]\naddress = \"{server}\""
        );
    }
    let config = DirectorConfig::parse(&text).expect("a valid configuration");
    let before = threads_and_descriptors();
    let started_at = Instant::now();
    let director = Director::start(config).await.expect("the director starts");
    let start = started_at.elapsed();
    let (threads, descriptors) = threads_and_descriptors();
    let services = director.status().services;
    let address = |number: usize| services[number].listen[0].parse().expect("an address");

    let idle = latencies(address(1), args.seconds).await;
    let mut load = JoinSet::new();
    for _ in 0..args.load {
        load.spawn(request_without_pause(address(0), Duration::from_secs(args.seconds)));
    }
    let loaded = latencies(address(1), args.seconds).await;
    let requests: u64 = load.join_all().await.iter().sum();
    println!(
        "{workers},{},{},{},{},{},{},{},{},{}",
        args.services,
        start.as_millis(),
        threads - before.0,
        descriptors - before.1,
        quantile(&idle, 0.5),
        quantile(&idle, 0.99),
        quantile(&loaded, 0.5),
        quantile(&loaded, 0.99),
        requests / args.seconds,
    );
    director.stop(Duration::ZERO).await;
}

/// Starts a server that echoes.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

/// Returns the threads and the open descriptors of this process.
fn threads_and_descriptors() -> (usize, usize) {
    let count = |path| std::fs::read_dir(path).expect("procfs").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Opens a connection every two milliseconds and returns how long each took to answer, in microseconds
/// and in order.
async fn latencies(address: SocketAddr, seconds: u64) -> Vec<u64> {
    let mut ticks = interval(Duration::from_millis(2));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut clients = JoinSet::new();
    while Instant::now() < end {
        // The latency counts from when the connection was due, not from when there was time for it.
        let due = ticks.tick().await;
        clients.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("the director listens");
            stream.write_all(b"?").await.expect("the connection is open");
            stream.read_u8().await.expect("the server answers");
            due.elapsed().as_micros() as u64
        });
    }
    let mut latencies = clients.join_all().await;
    latencies.sort_unstable();
    latencies
}

/// Sends requests over one connection until the time is over, and returns their number.
async fn request_without_pause(address: SocketAddr, time: Duration) -> u64 {
    let mut stream = TcpStream::connect(address).await.expect("the director listens");
    let end = Instant::now() + time;
    let (mut requests, mut buffer) = (0, [0; 512]);
    while Instant::now() < end {
        stream.write_all(&buffer).await.expect("the connection is open");
        stream.read_exact(&mut buffer).await.expect("the server answers");
        requests += 1;
    }
    requests
}

fn quantile(sorted: &[u64], part: f64) -> u64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}
