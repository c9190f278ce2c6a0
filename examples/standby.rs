//! An active and a standby director: run this program on both machines, each with a configuration.
//!
//! ```text
//! cargo run --release --example standby -- --config FILE
//! ```
//! `examples/standby.toml` is a configuration to start from. The program needs root, or the capabilities
//! `CAP_NET_RAW` and `CAP_NET_ADMIN`.

#[path = "director/logs.rs"]
mod logs;
#[path = "director/program.rs"]
mod program;
#[path = "director/service_manager.rs"]
mod service_manager;
#[path = "director/signals.rs"]
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lvs::director::DirectorConfig;

use crate::program::{Error, Program};

/// One director of a pair. The active one has the addresses of the `[vrrp]` table.
#[derive(Debug, Parser)]
struct Args {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Checks the configuration, prints the first error, and exits.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    program::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> Result<(), Error> {
    if args.check {
        return program::check(&args.config);
    }
    let config = DirectorConfig::load(&args.config)?;
    if !config.has_standby() {
        return Err(
            "the configuration has no [vrrp] table: use `--example director` without one".into()
        );
    }
    logs::start(config.log());
    Program::start(config, Some(args.config)).await?.run().await
}
