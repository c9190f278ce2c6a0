//! `lvs completions` and `lvs man`: shell completions and man pages, made from the definition of the
//! arguments.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::error::CliError;
use crate::output;

/// The man pages are of section 8, programs of the administrator.
const SECTION: &str = "8";

/// What lvs(8) says beside the arguments: a heading, and terms with their meaning.
const MORE: [(&str, &[(&str, &str)]); 5] = [
    (
        "SIGNALS",
        &[
            ("SIGHUP", "Reads the configuration again. An invalid one changes nothing."),
            (
                "SIGTERM, SIGINT",
                "Stop accepting connections, and end when the last one has ended, or after \
                 drain_timeout. A second signal ends the program at once.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("LVS_ADMIN", "The address of the director's admin server, for ctl and top."),
            ("LVS_TOKEN", "The token that the admin server requires, for ctl and top."),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS",
                "Set by systemd: see sd_notify(3) and sd_listen_fds(3).",
            ),
        ],
    ),
    ("FILES", &[("/etc/lvs/lvs.toml", "The configuration that lvs.service uses.")]),
    (
        "EXIT STATUS",
        &[
            ("0", "Success; of lvs run: the director has ended in order."),
            ("1", "An error, which standard error names with its cause."),
            ("2", "The arguments are wrong."),
            (
                "255",
                "Of lvs ipvs, as of ipvsadm: the kernel refuses a change, or an option is unknown.",
            ),
            ("130", "A second signal ended lvs run before its connections had ended."),
        ],
    ),
    ("SEE ALSO", &[("ipvsadm(8), keepalived(8), systemd.service(5)", "")]),
];

/// Prints a script that completes the arguments in a shell.
pub(crate) fn print_completions(mut definition: Command, shell: Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "lvs", &mut script);
    output::print(script).map_err(CliError::Output)
}

/// Prints lvs(8), or writes a page for each subcommand into a folder.
pub(crate) fn man(definition: Command, folder: Option<&Path>) -> Result<(), CliError> {
    let mut definition = without_help_command(definition);
    definition.build();
    let Some(folder) = folder else {
        let printed = page(&definition).and_then(output::print);
        return printed.map_err(CliError::Output);
    };
    fs::create_dir_all(folder)
        .map_err(|source| CliError::WriteFile { path: folder.to_owned(), source })?;
    write_pages(&definition, folder)
}

fn write_pages(command: &Command, folder: &Path) -> Result<(), CliError> {
    let path = folder.join(format!("{}.{SECTION}", page_name(command)));
    let written = page(command).and_then(|page| fs::write(&path, page));
    written.map_err(|source| CliError::WriteFile { path, source })?;
    command.get_subcommands().try_for_each(|command| write_pages(command, folder))
}

/// `lvs help run` prints what `lvs run --help` does, and needs no page.
fn without_help_command(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help_command)
}

/// Returns `lvs-ctl-list` for `lvs ctl list`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let manual = Man::new(command.clone()).section(SECTION).manual("lvs");
    manual.render(&mut page)?;
    if page_name(command) == "lvs" {
        more().to_writer(&mut page)?;
    }
    Ok(page)
}

fn more() -> Roff {
    let mut roff = Roff::new();
    for (heading, terms) in MORE {
        roff.control("SH", [heading]);
        for (term, meaning) in terms {
            roff.control("TP", []);
            roff.text([bold(*term)]);
            roff.text([roman(*meaning)]);
        }
    }
    roff
}
