//! Subcommands and options; completions and man pages, which are made from them.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::world::{Folder, output};

const SUBCOMMANDS: [&str; 10] =
    ["run", "check", "import", "ctl", "top", "ipvs", "packet", "real-server", "completions", "man"];
const CTL_COMMANDS: [&str; 9] =
    ["list", "add", "announce", "edit", "delete", "drain", "up", "down", "zero"];

#[test]
fn wrong_arguments_are_refused_with_the_reason() {
    let gue = ["real-server", "--vip", "192.0.2.1", "--method", "tunnel", "--tunnel", "gue"];
    let port = ["real-server", "--vip", "192.0.2.1", "--method=tunnel", "--port", "6080"];
    let cases: [(&[&str], &str); 16] = [
        (&["lst"], "subcommand"),
        (&["ctl", "lst"], "a similar subcommand exists: 'list'"),
        (&["chek", "lvs.toml"], "a similar subcommand exists: 'check'"),
        (&["check"], "usage: lvs check FILE"),
        (&["--config", "a", "check", "b"], "two configurations are given"),
        (&["--config", "a", "run", "--config", "b"], "given twice"),
        (&["--config", "a", "run", "--listen", "127.0.0.1:80"], "the option --listen is for the"),
        (&["run", "--config", "a", "--admin", "none"], "the option --admin is for the"),
        (&["--config", "a", "ctl", "list"], "--config is for `lvs run`"),
        (&["--as", "alice", "run"], "--as is for `lvs ctl` and `lvs top`"),
        (&["--admin", "127.0.0.1:9000", "import", "a"], "--admin and --token are for `lvs ctl`"),
        (&["real-server"], "--vip <ADDRESS>"),
        (&["real-server", "--vip", "224.0.0.1"], "one that clients can connect to"),
        (&["real-server", "--vip", "192.0.2.1", "--port", "6080"], "are for --method tunnel"),
        (&port, "the option --port is for --tunnel gue"),
        (&gue, "--tunnel gue requires the option --port"),
    ];
    for (words, reason) in cases {
        let (code, stdout, stderr) = output(words);
        assert_eq!((code, &*stdout), (Some(2), ""), "{words:?}");
        assert!(stderr.contains(reason), "{words:?}: {stderr}");
    }
}

#[test]
fn the_configuration_may_stand_before_the_subcommand() {
    for words in [["--config", "no/such.toml", "run"], ["run", "--config", "no/such.toml"]] {
        let (code, _, stderr) = output(&words);
        assert_eq!(code, Some(1));
        assert!(stderr.contains("cannot read no/such.toml: No such file"), "{stderr}");
    }
}

#[test]
fn completions_name_every_subcommand_and_the_shell_can_read_them() {
    let folder = Folder::new("completions");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = output(&["completions", shell]);
        assert_eq!(code, Some(0));
        for name in SUBCOMMANDS.iter().chain(&CTL_COMMANDS) {
            assert!(script.contains(name), "{shell}: {name}");
        }
        let path = folder.path(shell);
        fs::write(&path, script).expect("a file");
        // Each of the shells reads a script with `-n`, and does not execute it.
        match Command::new(shell).args(["-n", &path]).stdout(Stdio::null()).status() {
            Ok(status) => assert!(status.success(), "{shell}"),
            Err(error) => eprintln!("{shell} does not read its script: {error}"),
        }
    }
    assert_eq!(output(&["completions", "tcsh"]).0, Some(2));
}

#[test]
fn there_is_a_man_page_for_every_subcommand() {
    let (code, page, _) = output(&["man"]);
    assert_eq!(code, Some(0));
    assert!(page.contains(".TH lvs 8"), "{page}");
    for heading in ["NAME", "SYNOPSIS", "OPTIONS", "SUBCOMMANDS", "SIGNALS", "\"EXIT STATUS\""] {
        assert!(page.contains(&format!(".SH {heading}\n")), "{heading}: {page}");
    }
    let folder = Folder::new("man");
    let pages = folder.path("pages");
    assert_eq!(output(&["man", "--output", &pages]).0, Some(0));
    let subcommands = SUBCOMMANDS.map(|name| format!("lvs-{name}.8"));
    let ctl_commands = CTL_COMMANDS.map(|name| format!("lvs-ctl-{name}.8"));
    let expected = subcommands.into_iter().chain(ctl_commands).chain(["lvs.8".to_owned()]);
    let entries = fs::read_dir(&pages).expect("a folder");
    let names =
        entries.map(|entry| entry.expect("a file").file_name().into_string().expect("text"));
    assert_eq!(names.collect::<BTreeSet<_>>(), expected.collect());
    for name in SUBCOMMANDS {
        let name = name.replace('-', "\\-");
        assert!(page.contains(&format!("lvs\\-{name}(8)")), "{name}: {page}");
    }
    let list = fs::read_to_string(folder.path("pages/lvs-ctl-list.8")).expect("a page");
    assert!(list.contains("Lists services and servers"), "{list}");
    let ipvs = fs::read_to_string(folder.path("pages/lvs-ipvs.8")).expect("a page");
    for option in ["\\-\\-tcp\\-service", "\\-\\-set", "\\-\\-version", "\\-\\-persistent"] {
        assert!(ipvs.contains(option), "{option}: {ipvs}");
    }
}

#[test]
fn the_arguments_of_ipvs_are_those_of_ipvsadm() {
    for flag in ["-h", "--help"] {
        let (code, help, _) = output(&["ipvs", flag]);
        assert_eq!(code, Some(0));
        assert!(help.contains("-f, --fwmark-service MARK"), "{help}");
        assert!(help.contains("lvs ipvs COMMAND"), "{help}");
    }
    for flag in ["-v", "--version"] {
        let (code, version, _) = output(&["ipvs", flag]);
        assert_eq!(code, Some(0));
        assert!(version.starts_with("ipvsadm v1.31 "), "{version}");
    }
    let cases: [(&[&str], i32, &str); 5] = [
        (&["ipvs", "-A", "-t", "10.0.0.1"], 2, "must be persistent: add --persistent"),
        (&["ipvs", "--add-service", "-w", "1"], 2, "--add-service needs --tcp-service"),
        (&["ipvs", "-n", "-L"], 255, "the first option must be a command"),
        (&["ipvs", "web"], 255, "the first option must be a command"),
        (&["--admin", "127.0.0.1:9000", "ipvs", "-L"], 2, "--admin and --token are for `lvs ctl`"),
    ];
    for (words, expected, reason) in cases {
        let (code, stdout, stderr) = output(words);
        assert_eq!((code, &*stdout), (Some(expected), ""), "{words:?}");
        assert!(stderr.contains(reason), "{words:?}: {stderr}");
    }
}
