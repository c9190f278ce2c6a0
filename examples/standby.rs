//! An active and a standby director: run this program on both machines. Clients connect to the virtual
//! address, which the active director has.
//!
//! ```text
//! cargo run --release --example standby -- --interface eth0 --priority 150 \
//!     --address 10.88.0.100/24 --server 10.88.1.1:80 --server 10.88.1.2:80
//! cargo run --release --example standby -- --config examples/standby.toml
//! ```
//! The other machine has the same options with another priority. The program needs root, or the capabilities
//! `CAP_NET_RAW` and `CAP_NET_ADMIN`. Operators run `lvs run --config FILE`, which does the same.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lvs::director::{CheckConfig, Director, DirectorConfig, ServiceConfig, VrrpConfig};
use lvs::vrrp::VirtualAddress;
use tokio::signal::unix::{SignalKind, signal};

/// One director of a pair. The active one has the virtual address.
#[derive(Debug, Parser)]
struct Args {
    /// A configuration, in TOML, instead of the options below.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The network interface of the virtual address.
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    interface: String,
    /// The number of the virtual router, the same on both machines.
    #[arg(long, value_name = "NUMBER", default_value_t = 51)]
    virtual_router_id: u8,
    /// The priority: the director with the higher one is active.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    priority: u8,
    /// The virtual address.
    #[arg(long, default_value = "10.88.0.100/24")]
    address: VirtualAddress,
    /// The port that clients connect to.
    #[arg(long, default_value_t = 80)]
    port: u16,
    /// A server; repeatable.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "config")]
    server: Vec<SocketAddr>,
    /// Validates the configuration, prints the first error, and exits.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

/// Returns a configuration with one service on the virtual address, as the options describe it.
fn assemble(args: Args) -> Result<DirectorConfig, Box<dyn Error>> {
    let mut service = ServiceConfig::tcp("web")
        .listen(SocketAddr::new(args.address.ip(), args.port))
        .health(CheckConfig::tcp().interval(Duration::from_secs(1)));
    for server in args.server {
        service = service.server(server);
    }
    // A machine without a server that works leaves the address to the other one.
    let router = VrrpConfig::builder(args.interface, args.virtual_router_id)
        .priority(args.priority)
        .advert_interval(Duration::from_millis(100))
        .addresses([args.address])
        .service_weight(50);
    Ok(DirectorConfig::builder().vrrp(router).service(service).build()?)
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let check = args.check;
    let config = match &args.config {
        Some(path) => DirectorConfig::load(path)?,
        None => assemble(args)?,
    };
    if !config.has_standby() {
        return Err("the configuration has no [vrrp] table: it is not one of a pair".into());
    }
    if check {
        println!("the configuration is valid");
        return Ok(());
    }
    // Says who becomes master, and why.
    tracing_subscriber::fmt().with_target(false).init();
    let drain_timeout = config.drain_timeout();
    let mut terminate = signal(SignalKind::terminate())?;
    let director = Director::start(config).await?;
    for service in director.status().services {
        println!("{} listens on {}", service.name, service.listen.join(", "));
    }
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    let is_master = director.vrrp().is_some_and(|vrrp| vrrp.is_master());
    println!("stopping the {} director", if is_master { "active" } else { "standby" });
    // An active director serves until the other one has the addresses.
    let drained = director.stop(drain_timeout).await;
    println!("{} connections finished, {} cut", drained.finished, drained.cut);
    Ok(())
}
