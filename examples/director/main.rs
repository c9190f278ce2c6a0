//! A balancer to try: three small web servers behind one address, or servers of your own.
//!
//! ```text
//! cargo run --release --example director
//! curl http://127.0.0.1:8080/
//!
//! cargo run --release --example director -- --server 10.0.0.1:80 --server 10.0.0.2:80 --check /
//! ```

mod display;
mod server;
mod signals;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::Parser;
use lvs::forward::Forwarder;
use lvs::health::{Checks, Ejection, HttpCheck, Monitor, Plan, TcpCheck};
use lvs::scheduler::Registry;
use lvs::{BackendSet, Balancer, Spec};

use crate::display::Display;
use crate::signals::StopSignals;

/// Balances TCP connections over servers that it checks.
#[derive(Debug, Parser)]
struct Args {
    /// The address that clients connect to.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The scheduling rule: `wrr`, `wlc`, `bounded(maglev, factor=1.5)`, ...
    #[arg(long, value_name = "RULE", default_value = "wrr")]
    scheduler: String,
    /// A server; to be given once for each. Without: three small ones that are built in.
    #[arg(long, value_name = "ADDRESS")]
    server: Vec<SocketAddr>,
    /// The path to ask the servers for, which they must answer with 200. Without: they must accept
    /// connections.
    #[arg(long, value_name = "PATH")]
    check: Option<String>,
    /// From one check of a server to the next, and how long it may take.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 1000)]
    interval: u64,
}

/// How long running connections may take to end by themselves.
const DRAIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let mut stop = StopSignals::new()?;

    // Who can serve.
    let set = BackendSet::new();
    for server in servers(&args.server).await? {
        set.insert(server)?;
    }
    // Whom to choose.
    let balancer = Balancer::new(&set, Registry::default().parse(&args.scheduler)?)?;
    // Who looks after the servers.
    let monitor = Monitor::new();
    let check = match &args.check {
        Some(path) => Checks::new(HttpCheck::get(path)?),
        None => Checks::new(TcpCheck::new()),
    };
    let interval = Duration::from_millis(args.interval);
    let check = check.interval(interval).timeout(interval);
    monitor.watch(&set, Plan::new("web").check(check).eject(Ejection::new()))?;
    let mut events = monitor.events();
    tokio::spawn(monitor.run());
    // Where clients come in.
    let forwarder = Forwarder::bind(args.listen, balancer.clone())?;

    let handle = forwarder.handle();
    let mut running = tokio::spawn(forwarder.run());
    let mut display = Display::start(balancer, handle.clone())?;
    let mut refresh = tokio::time::interval(display.period());
    let mut stopping = false;
    let drained = loop {
        tokio::select! {
            _ = refresh.tick() => display.update()?,
            Some(event) = events.next() => display.say(&event?.to_string())?,
            drained = &mut running => break drained??,
            () = stop.next() => {
                if stopping {
                    exit(130);
                }
                stopping = true;
                handle.shutdown(DRAIN);
                display.say(&format!("draining for up to {DRAIN:?}; Ctrl-C again ends at once"))?;
            }
        }
    };
    display.say(&format!("drained: {} finished, {} cut", drained.finished, drained.cut))?;
    Ok(())
}

/// The set lists its newest member first, as the kernel does: the last to be inserted comes first.
async fn servers(addresses: &[SocketAddr]) -> io::Result<Vec<Spec<SocketAddr>>> {
    let mut servers: Vec<_> = addresses.iter().rev().map(|&address| Spec::from(address)).collect();
    if servers.is_empty() {
        for (name, weight) in [("gamma", 1), ("beta", 2), ("alpha", 3)] {
            servers.push(Spec::new(name, server::start(name).await?).weight(weight));
        }
    }
    Ok(servers)
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
