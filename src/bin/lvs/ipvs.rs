//! `lvs ipvs`: the kernel's IPVS with the arguments, the output and the exit codes of ipvsadm 1.31.

mod arguments;
mod command;
mod connections;
mod error;
mod help;
mod listing;
mod names;
mod option_table;
mod options;
mod restore;
mod save;
mod session;
mod sort;
mod text;
mod value;

use std::ffi::OsString;
use std::path::Path;

use self::command::{IpvsCommand, ListFormat};
pub(crate) use self::error::IpvsCommandError;
use self::session::IpvsSession;
use crate::error::CliError;

/// The arguments of `lvs ipvs`, or of the program under the name of ipvsadm.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct IpvsArgs {
    /// The command and the options of ipvsadm.
    #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
    #[arg(skip)]
    program: IpvsProgram,
}

/// The program that is asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum IpvsProgram {
    #[default]
    Subcommand,
    Ipvsadm,
    Save,
    Restore,
}

impl IpvsArgs {
    /// Returns the arguments of a process whose program has a name of ipvsadm's.
    pub(crate) fn of_linked_name(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let path = words.next()?;
        let program = match Path::new(&path).file_name()?.to_str()? {
            "ipvsadm" => IpvsProgram::Ipvsadm,
            "ipvsadm-save" => IpvsProgram::Save,
            "ipvsadm-restore" => IpvsProgram::Restore,
            _ => return None,
        };
        Some(Self { words: words.collect(), program })
    }

    /// Adds the options to the definition that completions and man pages are made from.
    pub(crate) fn document(definition: clap::Command) -> clap::Command {
        help::document(definition.mut_arg("words", |words| words.hide(true)))
    }
}

pub(crate) fn run(args: IpvsArgs) -> Result<(), CliError> {
    // What is not UTF-8 is no option, no number and no address.
    let words: Vec<_> = args.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let is_subcommand = args.program == IpvsProgram::Subcommand;
    let mut session = IpvsSession::new(if is_subcommand { "lvs ipvs" } else { "ipvsadm" });
    match args.program {
        IpvsProgram::Save => {
            if let Some(other) = words.iter().find(|word| word.starts_with('-') && *word != "-n") {
                return Err(IpvsCommandError::SaveOption(other.clone()).into());
            }
            session.execute(IpvsCommand::Save { is_numeric: words.iter().any(|word| word == "-n") })
        }
        IpvsProgram::Restore => session.replace_all(),
        _ if words.is_empty() => session.execute(IpvsCommand::List(None, ListFormat::default())),
        _ => {
            let command = session.parse(&words)?;
            session.execute(command)
        }
    }
}
