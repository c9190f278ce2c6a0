//! A TCP balancer in one page.
//!
//! ```text
//! cargo run --release --example tcp_forward -- --listen 127.0.0.1:8080 \
//!     --to 127.0.0.1:9001 --to 127.0.0.1:9002 --scheduler wlc
//! ```
//! Prints a line for each connection that ended; Ctrl-C ends it when all have.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lvs::forward::{Forwarder, ProxyHeaderOptions};
use lvs::{BackendSet, Balancer, scheduler};

/// Carries TCP connections to the backends that a scheduler chooses.
#[derive(Parser)]
struct Arguments {
    /// Where clients connect to.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A backend; give several.
    #[arg(long = "to", required = true)]
    backends: Vec<SocketAddr>,
    /// The rule that chooses: any short name, with parameters if need be.
    #[arg(long, default_value = "wlc")]
    scheduler: String,
    /// Threads; one for each core unless given.
    #[arg(long)]
    workers: Option<usize>,
    /// Who serves when no backend does.
    #[arg(long)]
    sorry: Option<SocketAddr>,
    /// Tell backends who the client is, by a PROXY header of version 2.
    #[arg(long)]
    send_proxy: bool,
    /// No line for each connection.
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

    let mut forwarder = Forwarder::bind(arguments.listen, balancer)?.name("tcp");
    if let Some(workers) = arguments.workers {
        forwarder = forwarder.workers(workers);
    }
    if let Some(sorry) = arguments.sorry {
        forwarder = forwarder.sorry_server(sorry);
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
        println!("finishing what runs; Ctrl-C again cuts it");
        handle.shutdown(Duration::MAX);
        let _ = tokio::signal::ctrl_c().await;
        handle.shutdown(Duration::ZERO);
    });
    let drained = forwarder.run().await?;
    println!("{} finished after the end began, {} cut", drained.finished, drained.cut);
    Ok(())
}
