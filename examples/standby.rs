//! An active and a standby director: the same program on both machines, with a configuration each.
//!
//! ```text
//! cargo run --release --example standby -- --config FILE
//! ```
//! `examples/standby.toml` is a configuration to begin with. It needs root, or the capabilities
//! `CAP_NET_RAW` and `CAP_NET_ADMIN`.

use std::error::Error;
use std::path::PathBuf;
use std::process::{ExitCode, exit};
use std::time::Duration;

use clap::Parser;
use lvs::director::{Config, Director};
use tokio::signal::unix::{SignalKind, signal};

/// A director, and one of an active/standby pair if its configuration has a `[vrrp]` table.
#[derive(Debug, Parser)]
struct Args {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the configuration, says what is wrong with it, and ends.
    #[arg(long)]
    check: bool,
    /// How long connections may take to end by themselves, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    drain: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_target(false).with_writer(std::io::stderr).init();
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&args.config)?;
    if args.check {
        println!("{} is sound", args.config.display());
        return Ok(());
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let director = Director::start(config).await?;
    for service in director.status().services {
        let servers = service.servers.len();
        println!("{}: {}/{}, {servers} servers", service.name, service.listen, service.protocol);
    }
    if let Some(admin) = director.admin() {
        println!("status: curl http://{admin}/api/v1/status");
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    println!("stopping; once more ends at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        exit(130);
    });
    let drained = director.stop(Duration::from_secs(args.drain)).await;
    println!("drained: {} finished, {} cut", drained.finished, drained.cut);
    Ok(())
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
