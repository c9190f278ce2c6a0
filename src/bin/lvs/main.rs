//! `lvs`, the director as operators install and run it.
//!
//! ```text
//! lvs run                                     # three small web servers behind 127.0.0.1:8080
//! lvs run --config /etc/lvs/lvs.toml
//! lvs check /etc/lvs/lvs.toml
//! lvs import /etc/keepalived/keepalived.conf
//! lvs ctl list
//! lvs top
//! ```
//! [`arguments`] has the subcommands and options, from which `lvs completions` and `lvs man` make shell
//! completions and man pages too.

mod arguments;
mod client;
mod ctl;
mod demo;
mod demo_server;
mod display;
mod error;
mod logs;
mod output;
mod program;
mod reference;
mod run;
mod service_manager;
mod signals;
mod top;

use std::path::Path;
use std::process::ExitCode;

use lvs::director::{DirectorConfig, Importer};

use crate::arguments::{Cli, CliCommand};
use crate::error::CliError;

#[tokio::main]
async fn main() -> ExitCode {
    let command = Cli::parse_command();
    error::exit_code(execute(command).await)
}

async fn execute(command: CliCommand) -> Result<(), CliError> {
    match command {
        CliCommand::Run(args) => run::run(args).await,
        CliCommand::Check(args) => match args.path() {
            Some(path) => check(path),
            None => Ok(()),
        },
        CliCommand::Import { file, config_id } => {
            let folder = file.parent().map(Path::to_owned).unwrap_or_default();
            let text = std::fs::read_to_string(&file)
                .map_err(|source| CliError::ReadFile { path: file, source })?;
            let importer = Importer::new().folder(folder);
            let importer = match config_id {
                Some(id) => importer.config_id(id),
                None => importer,
            };
            output::print(&importer.import(&text)?).map_err(CliError::Output)
        }
        CliCommand::Ctl(args) => ctl::run(args).await,
        CliCommand::Top(args) => top::run(args).await,
        CliCommand::Completions { shell } => reference::print_completions(Cli::definition(), shell),
        CliCommand::Man { output } => reference::man(Cli::definition(), output.as_deref()),
    }
}

/// Reads a configuration, and prints that it is valid.
fn check(path: &Path) -> Result<(), CliError> {
    DirectorConfig::load(path)?;
    output::print(format!("{} is valid\n", path.display())).map_err(CliError::Output)
}
