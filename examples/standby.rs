//! An active and a standby director: run this program on both machines, each with a configuration.
//!
//! ```text
//! cargo run --release --example standby -- --config FILE
//! ```
//! `examples/standby.toml` is a configuration to start from. The program needs root, or the capabilities
//! `CAP_NET_RAW` and `CAP_NET_ADMIN`. Operators run `lvs run --config FILE`, which does the same.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lvs::director::{Director, DirectorConfig};
use tokio::signal::unix::{SignalKind, signal};

/// One director of a pair. The active one has the addresses of the `[vrrp]` table.
#[derive(Debug, Parser)]
struct Args {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
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

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let config = DirectorConfig::load(&args.config)?;
    if !config.has_standby() {
        return Err("the configuration has no [vrrp] table: it is not one of a pair".into());
    }
    if args.check {
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
