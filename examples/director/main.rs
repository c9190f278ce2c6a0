//! The director as an operator runs it. Without a configuration it starts three small web servers
//! behind one address, to try it.
//!
//! ```text
//! cargo run --release --example director
//! curl http://127.0.0.1:8080/
//!
//! cargo run --release --example director -- --server 10.0.0.1:80 --server 10.0.0.2:80 --health /
//! cargo run --release --example director -- --config FILE
//! cargo run --release --example director -- ctl list
//! ```
//! `examples/director.toml` is a configuration with every key.

mod client;
mod ctl;
mod demo;
mod display;
mod logs;
mod program;
mod server;
mod service_manager;
mod signals;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lvs::director::{DirectorConfig, import};

use crate::program::{Error, Program};

/// Balances connections over servers with health checks.
///
/// SIGHUP reads the configuration again; an invalid one changes nothing, and the reason is logged.
/// SIGTERM and SIGINT stop accepting connections; the program ends when the last connection has ended,
/// or after the configuration's `drain_timeout`. A second signal ends it at once.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    /// The configuration, in TOML.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Checks the configuration, prints the first error, and exits.
    #[arg(long, requires = "config")]
    check: bool,
    /// Converts a configuration of another program, a `keepalived.conf` or the output of
    /// `ipvsadm-save -n`, and prints it. Comments name what is not converted.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    import: Option<PathBuf>,
    #[command(flatten)]
    demo: demo::DemoArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows and changes a running director, in the style of ipvsadm.
    Ctl(ctl::CtlArgs),
    /// Shows a running director in the terminal.
    Top(top::TopArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    program::exit_code(run(Args::parse()).await)
}

async fn run(args: Args) -> Result<(), Error> {
    match (args.command, args.config, args.import) {
        (Some(Command::Ctl(args)), ..) => ctl::run(args).await,
        (Some(Command::Top(args)), ..) => top::run(args).await,
        (None, Some(path), _) if args.check => program::check(&path),
        (None, Some(path), _) => {
            let config = DirectorConfig::load(&path)?;
            logs::start(config.log());
            Program::start(config, Some(path)).await?.run().await
        }
        (None, None, Some(path)) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            print!("{}", import(&text)?);
            Ok(())
        }
        (None, None, None) => demo::run(args.demo).await,
    }
}
