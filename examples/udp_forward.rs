//! Forwards the datagrams of one address to the backends it is given.
//!
//! ```text
//! cargo run --release --example udp_forward -- --listen 127.0.0.1:5300 --to 127.0.0.1:5301 --to 127.0.0.1:5302
//! ```
//! Ctrl-C begins a drain: no new flows, and those that live have a while to end. A second one cuts
//! them.

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
    /// Where clients send to.
    #[arg(long, default_value = "127.0.0.1:5300")]
    listen: SocketAddr,
    /// A backend; port 0 means the port of `--listen`.
    #[arg(long = "to", required = true)]
    backends: Vec<SocketAddr>,
    /// How to choose: rr, wlc, sh, maglev, ...
    #[arg(long, default_value = "rr")]
    scheduler: String,
    /// Threads; one a core if not given.
    #[arg(long)]
    workers: Option<usize>,
    /// Seconds without a datagram after which a flow ends.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Replies after which a flow ends; 1 for DNS.
    #[arg(long)]
    replies: Option<u32>,
    /// Schedule every datagram by itself.
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

    tokio::spawn(end_on_signal(forwarder.handle(), Duration::from_secs(options.idle)));
    let handle = forwarder.handle();
    let drained = forwarder.run().await?;
    println!("{} flows finished, {} cut", drained.finished, drained.cut);
    for backend in handle.backends() {
        let (to, from) = (backend.to_server.datagrams, backend.from_server.datagrams);
        println!(
            "{}: {} flows, {to} datagrams to it, {from} from it",
            backend.id, backend.flows_started
        );
    }
    println!("{:#?}", handle.counters());
    Ok(())
}

async fn end_on_signal(handle: UdpHandle, patience: Duration) {
    for patience in [patience, Duration::ZERO] {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.shutdown(patience);
        }
    }
}
