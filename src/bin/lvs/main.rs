//! `lvs`, the director as operators install and run it.
//!
//! ```text
//! lvs run                                     # three small web servers behind 127.0.0.1:8080
//! lvs run --config /etc/lvs/lvs.toml
//! lvs check /etc/lvs/lvs.toml
//! lvs import /etc/keepalived/keepalived.conf
//! lvs ctl list
//! lvs top
//! lvs ipvs -Ln
//! lvs packet show
//! lvs real-server --vip 192.0.2.10
//! ```
//! [`arguments`] has the subcommands and options, from which `lvs completions` and `lvs man` make shell
//! completions and man pages too.

mod arguments;
mod background_writer;
mod client;
mod ctl;
mod demo;
mod demo_server;
mod display;
mod error;
mod ipvs;
mod logs;
mod output;
mod packet;
mod program;
mod real_server;
mod reference;
mod run;
mod service_manager;
mod signals;
mod top;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use lvs::director::{Director, DirectorConfig, Importer};

use crate::arguments::{Cli, CliCommand};
use crate::error::CliError;

/// The largest configuration that is imported, in bytes.
const MAX_IMPORT_FILE: u64 = 16 << 20;
/// How long the end of the program waits for a reader of its last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let code = error::exit_code(match Cli::parse_command() {
        // Scripts call it often, and it waits for the kernel only.
        CliCommand::Ipvs(args) => ipvs::run(args),
        command => in_runtime(command),
    });
    output::flush(FLUSH_LIMIT);
    code
}

#[tokio::main]
async fn in_runtime(command: CliCommand) -> Result<(), CliError> {
    execute(command).await
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
            let text =
                read_import(&file).map_err(|source| CliError::ReadFile { path: file, source })?;
            let importer = Importer::new().folder(folder);
            let importer = match config_id {
                Some(id) => importer.config_id(id),
                None => importer,
            };
            output::print(&importer.import(&text)?).map_err(CliError::Output)
        }
        CliCommand::Ctl(args) => ctl::run(args).await,
        CliCommand::Top(args) => top::run(args).await,
        CliCommand::Ipvs(args) => ipvs::run(args),
        CliCommand::Packet(args) => packet::run(args),
        CliCommand::RealServer(args) => real_server::run(args).await,
        CliCommand::Completions { shell } => reference::print_completions(Cli::definition(), shell),
        CliCommand::Man { output } => reference::man(Cli::definition(), output.as_deref()),
    }
}

/// Reads a configuration to import. It may be a pipe: `ipvsadm-save -n | lvs import /dev/stdin`.
fn read_import(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_IMPORT_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_IMPORT_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(text)
}

/// Checks a configuration as a start does, and prints that it is valid.
fn check(path: &Path) -> Result<(), CliError> {
    let config = DirectorConfig::load(path)?;
    Director::check(&config).map_err(CliError::Refusals)?;
    for warning in config.warnings() {
        output::complain(&format!("warning: {warning}\n"));
    }
    output::print(format!("{} is valid\n", path.display())).map_err(CliError::Output)
}
