//! What `-h` and `-v` print, and the definition for completions and the man page.

use std::fmt::Write as _;

use clap::{Arg, ArgAction};

use super::option_table::{IpvsOptionSpec, OPTIONS, OptionValue};
use super::options::{IpvsAction, IpvsOption};

/// The version of ipvsadm whose options these are comes first, for scripts that ask for it.
pub(super) const VERSION: &str =
    concat!("ipvsadm v1.31 (as of lvs ", env!("CARGO_PKG_VERSION"), ")\n");

/// Its values are words of their own.
const SET_TIMEOUTS: IpvsOption = IpvsOption::Action(IpvsAction::SetTimeouts);

/// Returns the help of a program with this name.
pub(super) fn usage(program: &str) -> String {
    let mut text = format!(
        "{program}: lists and changes the kernel's IPVS\n\nUsage:\n  {program}\n  {program} COMMAND \
         [OPTION]...\n"
    );
    for (heading, is_command) in [("Commands", true), ("Options", false)] {
        let _ = write!(text, "\n{heading}:\n");
        let is_of_heading =
            |spec: &&IpvsOptionSpec| matches!(spec.option, IpvsOption::Action(_)) == is_command;
        for spec in OPTIONS.iter().filter(is_of_heading) {
            let _ = writeln!(text, "  {}\n          {}", forms(spec), spec.help);
        }
    }
    text
}

/// Writes the forms of an option: `-L, -l, --list`.
fn forms(spec: &IpvsOptionSpec) -> String {
    let short: String = spec.short.chars().map(|letter| format!("-{letter}, ")).collect();
    let value = match spec.value {
        OptionValue::Required(name) => format!(" {name}"),
        OptionValue::Optional(name) => format!(" [{name}]"),
        OptionValue::None if spec.option == SET_TIMEOUTS => " TCP TCPFIN UDP".to_owned(),
        OptionValue::None => String::new(),
    };
    format!("{short}--{}{value}", spec.long)
}

/// Adds all options to a definition.
pub(super) fn document(definition: clap::Command) -> clap::Command {
    definition.args(OPTIONS.iter().map(|spec| {
        let mut short = spec.short.chars();
        let arg = Arg::new(spec.long).long(spec.long).short(short.next()).help(spec.help);
        let arg = arg.visible_short_aliases(short);
        match spec.value {
            OptionValue::None if spec.option == SET_TIMEOUTS => {
                arg.value_names(["TCP", "TCPFIN", "UDP"]).num_args(3)
            }
            OptionValue::None => arg.action(ArgAction::SetTrue),
            OptionValue::Optional(name) => arg.value_name(name).num_args(0..=1),
            OptionValue::Required(name) => arg.value_name(name),
        }
    }))
}
