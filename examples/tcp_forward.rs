//! A minimal TCP load balancer.
//!
//! ```text
//! cargo run --release --example tcp_forward -- --listen 127.0.0.1:8080 \
//!     --to 127.0.0.1:9001 --to 127.0.0.1:9002 --scheduler wlc
//! ```
//! Prints a record of each connection that ended. Ctrl-C drains it; a second Ctrl-C cuts the open
//! connections.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lvs::forward::{Forwarder, ProxyHeaderOptions, Route};
use lvs::{BackendSet, Balancer, scheduler};

/// Forwards TCP connections to the backends that a scheduler picks.
#[derive(Parser)]
struct Arguments {
    /// The address that clients connect to.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The address of a backend; may be repeated.
    #[arg(long = "to", required = true)]
    backends: Vec<SocketAddr>,
    /// The scheduler: a short name, with parameters if needed.
    #[arg(long, default_value = "wlc")]
    scheduler: String,
    /// The number of worker threads. Default: one for each core.
    #[arg(long)]
    workers: Option<usize>,
    /// The address of the server for connections that no backend can serve.
    #[arg(long)]
    sorry: Option<SocketAddr>,
    /// Send a PROXY header of version 2 to backends.
    #[arg(long)]
    send_proxy: bool,
    /// Do not print connection records.
    #[arg(long)]
    quiet: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let set = BackendSet::new();
    for &backend in &arguments.backends {
        set.insert(backend)?;
    }
    let balancer = Balancer::new(&set, scheduler::parse(&arguments.scheduler)?)?;

    let mut route = Route::new(balancer);
    if let Some(sorry) = arguments.sorry {
        route = route.sorry_server(sorry);
    }
    let mut forwarder = Forwarder::bind(arguments.listen, route)?.name("tcp");
    if let Some(workers) = arguments.workers {
        forwarder = forwarder.workers(workers);
    }
    if arguments.send_proxy {
        forwarder = forwarder.send_proxy(ProxyHeaderOptions::v2());
    }
    if !arguments.quiet {
        forwarder = forwarder.on_end(|record| println!("{record}"));
    }

    let handle = forwarder.handle();
    println!("listening on {}", arguments.listen);
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        println!("draining; Ctrl-C again cuts the open connections");
        handle.shutdown(Duration::MAX);
        let _ = tokio::signal::ctrl_c().await;
        handle.shutdown(Duration::ZERO);
    });
    let report = forwarder.run().await?;
    println!("{} connections finished during the drain, {} cut", report.finished, report.cut);
    Ok(())
}
