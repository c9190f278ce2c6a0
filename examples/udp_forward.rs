//! Forwards the datagrams of one address to a list of backends.
//!
//! ```text
//! cargo run --release --example udp_forward -- --listen 127.0.0.1:5300 --to 127.0.0.1:5301 --to 127.0.0.1:5302
//! ```
//! Ctrl-C starts a drain: no new flows start, and existing flows are cut after the idle timeout. A
//! second Ctrl-C cuts them at once.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lvs::forward::{UdpForwarder, UdpHandle};
use lvs::scheduler::SchedulerRegistry;
use lvs::{BackendSet, Balancer};

#[derive(Debug, Parser)]
struct Options {
    /// The address that clients send to.
    #[arg(long, default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    /// A backend; port 0 means the port of `--listen`.
    #[arg(long = "to", required = true)]
    backends: Vec<SocketAddr>,
    /// The scheduler: rr, wlc, sh, maglev, ...
    #[arg(long, default_value = "rr")]
    scheduler: String,
    /// The number of worker threads; default: one for each core.
    #[arg(long)]
    workers: Option<usize>,
    /// The idle timeout of a flow in seconds.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// The number of replies after which a flow ends; 1 for DNS.
    #[arg(long)]
    replies: Option<u32>,
    /// Schedule each datagram separately.
    #[arg(long)]
    one_packet: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();

    let set = BackendSet::new();
    for address in &options.backends {
        set.insert(*address)?;
    }
    let scheduler = SchedulerRegistry::default().parse(&options.scheduler)?;
    let balancer = Balancer::new(&set, scheduler)?;

    let mut forwarder = UdpForwarder::bind(options.listen, balancer)?
        .idle_timeout(Duration::from_secs(options.idle))
        .one_packet(options.one_packet);
    if let Some(workers) = options.workers {
        forwarder = forwarder.workers(workers);
    }
    if let Some(replies) = options.replies {
        forwarder = forwarder.replies(replies);
    }
    println!("{} -> {:?}", forwarder.local_addr(), options.backends);

    tokio::spawn(shut_down_on_signal(forwarder.handle(), Duration::from_secs(options.idle)));
    let handle = forwarder.handle();
    let report = forwarder.run().await?;
    println!("{} flows finished, {} cut", report.finished, report.cut);
    for backend in handle.backends() {
        let (sent, received) = (backend.to_server.datagrams, backend.from_server.datagrams);
        println!(
            "{}: {} flows, {sent} datagrams sent, {received} received",
            backend.id, backend.flows_started
        );
    }
    println!("{:#?}", handle.counters());
    Ok(())
}

async fn shut_down_on_signal(handle: UdpHandle, drain_timeout: Duration) {
    for timeout in [drain_timeout, Duration::ZERO] {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.shutdown(timeout);
        }
    }
}
