//! The subcommands and options: the one source of parsing, `--help`, completions and man pages.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::client::AdminArgs;
use crate::ctl::CtlArgs;
use crate::ipvs::IpvsArgs;
use crate::packet::PacketArgs;
use crate::real_server::RealServerArgs;
use crate::run::RunArgs;
use crate::top::TopArgs;

/// A layer-4 load balancer: spreads connections over servers with health checks.
///
/// `lvs run` is the director, a server that forwards connections. `lvs check` validates its
/// configuration and `lvs import` makes one. `lvs ctl` and `lvs top` show and change a director that
/// runs, `lvs ipvs` the kernel's IPVS, `lvs packet` what the engine `packet` has in the kernel. `lvs real-server` prepares a server for direct routing or tunnels.
/// The options below may stand before a subcommand that has them, or after it.
#[derive(Debug, Parser)]
#[command(name = "lvs", version, propagate_version = true)]
pub(crate) struct Cli {
    /// The configuration, in TOML: for `run` and `check`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address of the director's admin server: for `ctl`, `top` and `run`.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The token that the admin server requires: for `ctl`, `top` and `run`.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Your name, for the director's log of changes: for `ctl` and `top`.
    #[arg(long = "as", value_name = "NAME")]
    operator: Option<String>,
    #[command(subcommand)]
    command: CliCommand,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Runs a director: from a configuration, or a demonstration without one.
    ///
    /// Without `--config`, the other options describe one service; without `--server`, three small
    /// web servers are started behind it.
    ///
    /// SIGHUP reads the configuration again; an invalid one changes nothing, and the reason is logged.
    /// SIGTERM and SIGINT stop accepting connections; the program ends when the last connection has
    /// ended, or after the configuration's `drain_timeout`. A second signal ends it at once.
    Run(RunArgs),
    /// Checks a configuration as a start does that opens no socket, and prints all errors and warnings.
    Check(CheckArgs),
    /// Converts a configuration of keepalived or ipvsadm, and prints it.
    ///
    /// Comments in the result name what is not converted.
    Import {
        /// A `keepalived.conf`, or the output of `ipvsadm-save`.
        file: PathBuf,
        /// The name that conditions such as `@main` of a `keepalived.conf` are converted for. Default:
        /// this machine's name up to its first dot.
        #[arg(long, value_name = "ID")]
        config_id: Option<String>,
    },
    /// Shows and changes a running director, in the style of ipvsadm.
    Ctl(CtlArgs),
    /// Shows a running director in the terminal.
    ///
    /// Keys: arrows, Page Up and Page Down select a server, `/` filters by service, name, address or
    /// state, `s` sorts otherwise. `d` drains the server, `u` lets it get connections again, `x` disables
    /// it, `+` and `-` change its weight; each change is confirmed by `y`. `q` ends the program.
    Top(TopArgs),
    /// Lists and changes the kernel's IPVS, with the arguments and the output of ipvsadm.
    ///
    /// It takes the place of ipvsadm when the program is linked under its name: as `ipvsadm`,
    /// `ipvsadm-save` and `ipvsadm-restore` it is ipvsadm. The first option is the command; without one,
    /// the services are listed.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Ipvs(IpvsArgs),
    /// Shows or removes what the kernel has of the engine `packet`, whether a director runs or not.
    ///
    /// A director that was killed, or that keeps its services when it stops, leaves a program in the kernel that
    /// goes on carrying packets. Needs the capabilities CAP_BPF and CAP_NET_ADMIN.
    Packet(PacketArgs),
    /// Makes this machine a real server for direct routing or tunnels, until a signal ends the program.
    ///
    /// Adds the virtual addresses to `lo` or to the tunnel's interface, keeps the machine from answering ARP
    /// requests for them, and unpacks what arrives through a tunnel. Each change is printed, and undone by SIGINT, SIGTERM or
    /// SIGHUP; what was as it should be before stays. Needs the program `ip` of iproute2 and the
    /// capability CAP_NET_ADMIN; a tunnel needs its kernel module.
    RealServer(RealServerArgs),
    /// Prints a script that completes `lvs` in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the man page lvs(8), or writes the man pages of all subcommands.
    Man {
        /// A folder to write a page to for each subcommand: lvs.8, lvs-run.8, ...
        #[arg(long, value_name = "DIRECTORY")]
        output: Option<PathBuf>,
    },
}

/// The configuration to check.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The configuration, in TOML.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as an option.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl CheckArgs {
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_deref().or(self.config.as_deref())
    }
}

impl Cli {
    /// Parses the arguments of the process; prints help or an error and exits where they ask for it.
    pub(crate) fn parse_command() -> CliCommand {
        if let Some(args) = IpvsArgs::of_linked_name(std::env::args_os()) {
            return CliCommand::Ipvs(args);
        }
        Self::parse().into_command().unwrap_or_else(|error| error.exit())
    }

    /// Returns the definition that completions and man pages are made from.
    pub(crate) fn definition() -> clap::Command {
        Self::command().mut_subcommand("ipvs", IpvsArgs::document)
    }

    /// Gives the options that stand before the subcommand to the subcommand.
    fn into_command(self) -> Result<CliCommand, clap::Error> {
        let Self { mut config, admin, token, mut operator, mut command } = self;
        let mut before = Some(AdminArgs { admin, token, operator: None });
        match &mut command {
            CliCommand::Run(args) => {
                merge_config(&mut args.config, config.take())?;
                merge_admin(&mut args.admin, &mut args.token, before.take());
                if let (Some(_), Some(option)) = (&args.config, args.demo_option()) {
                    return Err(conflict(&format!(
                        "the option {option} is for the demonstration: with --config, the \
                         configuration says it"
                    )));
                }
            }
            CliCommand::Check(args) => {
                if let (Some(_), Some(_)) = (&args.file, &config) {
                    return Err(conflict("two configurations are given: check one at a time"));
                }
                merge_config(&mut args.config, config.take())?;
                if args.path().is_none() {
                    let text = "which configuration? usage: lvs check FILE";
                    return Err(Self::command().error(ErrorKind::MissingRequiredArgument, text));
                }
            }
            CliCommand::Ctl(args) => {
                let own = &mut args.connection;
                own.operator = own.operator.take().or(operator.take());
                merge_admin(&mut own.admin, &mut own.token, before.take());
            }
            CliCommand::Top(args) => {
                let own = &mut args.connection;
                own.operator = own.operator.take().or(operator.take());
                merge_admin(&mut own.admin, &mut own.token, before.take());
            }
            CliCommand::RealServer(args) => args.validate().map_err(conflict)?,
            CliCommand::Import { .. }
            | CliCommand::Ipvs(_)
            | CliCommand::Packet(_)
            | CliCommand::Completions { .. }
            | CliCommand::Man { .. } => {}
        }
        if config.is_some() {
            return Err(conflict("the option --config is for `lvs run` and `lvs check`"));
        }
        if operator.is_some() {
            return Err(conflict("the option --as is for `lvs ctl` and `lvs top`"));
        }
        if before.is_some_and(|given| given.admin.is_some() || given.token.is_some()) {
            let text = "the options --admin and --token are for `lvs ctl`, `lvs top` and `lvs run`";
            return Err(conflict(text));
        }
        Ok(command)
    }
}

fn merge_config(own: &mut Option<PathBuf>, before: Option<PathBuf>) -> Result<(), clap::Error> {
    if own.is_some() && before.is_some() {
        return Err(conflict("the option --config is given twice"));
    }
    *own = own.take().or(before);
    Ok(())
}

/// Of an option that is given twice, the one after the subcommand counts.
fn merge_admin(admin: &mut Option<String>, token: &mut Option<String>, before: Option<AdminArgs>) {
    if let Some(before) = before {
        *admin = admin.take().or(before.admin);
        *token = token.take().or(before.token);
    }
}

fn conflict(text: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}
