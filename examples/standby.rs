//! An active and a standby director: the same program on both machines, with a configuration each.
//!
//! ```text
//! cargo run --release --example standby -- --config FILE
//! ```
//! `examples/standby.toml` is a configuration to begin with. It needs root, or the capabilities
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

/// One of a pair of directors, of which one has the addresses of the configuration's `[vrrp]` table.
#[derive(Debug, Parser)]
struct Args {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Reads the configuration, says what is wrong with it, and ends.
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
        return Err("there is no [vrrp] table: `--example director` needs none".into());
    }
    logs::start(config.log());
    Program::start(config, Some(args.config)).await?.run().await
}
