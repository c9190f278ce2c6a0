//! Splits a command line into its command, its options and their values, by the rules of ipvsadm's parser:
//! short options may be combined (`-Ln`), a value may follow in the same word (`-w3`, `-w=3`,
//! `--weight=3`) or in the next one, and an optional value in the next word does not begin with `-`.

use std::iter::Peekable;

use super::error::IpvsArgumentError;
use super::option_table::{IpvsOptionSpec, OPTIONS, OptionValue};
use super::options::{IpvsAction, IpvsOption};

type Words<'a> = Peekable<std::slice::Iter<'a, String>>;

/// A command line.
#[derive(Debug)]
pub(super) struct IpvsArguments {
    pub(super) action: IpvsAction,
    /// The value of the command, such as the state of a daemon.
    pub(super) action_value: String,
    options: Vec<GivenOption>,
    /// The words that belong to no option.
    pub(super) rest: Vec<String>,
}

#[derive(Debug)]
struct GivenOption {
    spec: &'static IpvsOptionSpec,
    value: Option<String>,
}

impl IpvsArguments {
    /// Splits a command line, and checks that its options are those of the command.
    pub(super) fn parse(words: &[String]) -> Result<Self, IpvsArgumentError> {
        let (mut options, mut rest) = (Vec::new(), Vec::new());
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            if word == "--" {
                rest.extend(words.by_ref().cloned());
            } else if let Some(long) = word.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (long, None),
                };
                let spec = OPTIONS.iter().find(|spec| spec.long == name);
                let unknown = || IpvsArgumentError::UnknownOption(format!("--{name}"));
                options.push(with_value(spec.ok_or_else(unknown)?, value, &mut words)?);
            } else if let Some(letters) = word.strip_prefix('-').filter(|it| !it.is_empty()) {
                split_letters(letters, &mut words, &mut options)?;
            } else {
                rest.push(word.clone());
            }
        }
        Self::with_command(options, rest)
    }

    fn with_command(
        options: Vec<GivenOption>,
        rest: Vec<String>,
    ) -> Result<Self, IpvsArgumentError> {
        let mut options = options.into_iter();
        let (first, action) = match options.next() {
            Some(first) => match first.spec.option {
                IpvsOption::Action(action) => (first, action),
                _ => return Err(IpvsArgumentError::NoCommand),
            },
            None => return Err(IpvsArgumentError::NoCommand),
        };
        let action_value = first.value.unwrap_or_default();
        let arguments = Self { action, action_value, options: options.collect(), rest };
        // `ipvsadm -h` and `-v` ignore everything else.
        if !matches!(action, IpvsAction::Help | IpvsAction::Version) {
            arguments.check_options()?;
        }
        Ok(arguments)
    }

    fn check_options(&self) -> Result<(), IpvsArgumentError> {
        let action = self.action;
        for (n, given) in self.options.iter().enumerate() {
            let option = &given.spec.option;
            if let IpvsOption::Action(_) = option {
                return Err(IpvsArgumentError::SecondCommand(action.name(), given.spec.long));
            }
            // Neither changes anything when it is repeated.
            let may_repeat = matches!(option, IpvsOption::Ipv6 | IpvsOption::Sort);
            let mut before = self.options[..n].iter();
            if !may_repeat && before.any(|other| other.spec.option.is_kind_of(option)) {
                return Err(IpvsArgumentError::repeated(option));
            }
        }
        let allowed = action.options();
        if let Some(missing) = allowed.required.iter().find(|option| self.find(option).is_none()) {
            return Err(IpvsArgumentError::missing(missing, action));
        }
        let is_allowed = |option: &IpvsOption| {
            let lists =
                [allowed.required, allowed.optional, allowed.exclusive, &[IpvsOption::Sort]];
            lists.iter().any(|list| list.iter().any(|other| other.is_kind_of(option)))
        };
        let mut given = self.options.iter().map(|given| given.spec.option);
        if let Some(unwanted) = given.find(|option| !is_allowed(option)) {
            return Err(IpvsArgumentError::unwanted(&unwanted, action));
        }
        let mut exclusive = allowed.exclusive.iter().filter(|option| self.find(option).is_some());
        if let (Some(one), Some(other)) = (exclusive.next(), exclusive.next()) {
            return Err(IpvsArgumentError::Conflict(one.to_string(), other.to_string()));
        }
        Ok(())
    }

    fn find(&self, option: &IpvsOption) -> Option<&GivenOption> {
        self.options.iter().find(|given| given.spec.option.is_kind_of(option))
    }

    /// Tells whether an option is given.
    pub(super) fn has(&self, option: IpvsOption) -> bool {
        self.find(&option).is_some()
    }

    /// Returns the option of this kind that is given, such as one of the forwarding methods.
    pub(super) fn given(&self, option: IpvsOption) -> Option<IpvsOption> {
        self.find(&option).map(|given| given.spec.option)
    }

    /// Returns the name of an option of this kind, and its value. `None` without the option, or without
    /// its optional value.
    pub(super) fn value(&self, option: IpvsOption) -> Option<(&'static str, &str)> {
        let given = self.find(&option)?;
        Some((given.spec.long, given.value.as_deref()?))
    }
}

/// Splits a word of short options; the first one that takes a value takes the rest of the word.
fn split_letters(
    letters: &str,
    words: &mut Words<'_>,
    options: &mut Vec<GivenOption>,
) -> Result<(), IpvsArgumentError> {
    for (n, letter) in letters.char_indices() {
        let spec = OPTIONS.iter().find(|spec| spec.short.contains(letter));
        let spec = spec.ok_or_else(|| IpvsArgumentError::UnknownOption(format!("-{letter}")))?;
        if spec.value == OptionValue::None {
            options.push(GivenOption { spec, value: None });
            continue;
        }
        let attached = Some(&letters[n + letter.len_utf8()..]).filter(|it| !it.is_empty());
        let attached = attached.map(|value| value.strip_prefix('=').unwrap_or(value));
        options.push(with_value(spec, attached, words)?);
        break;
    }
    Ok(())
}

fn with_value(
    spec: &'static IpvsOptionSpec,
    attached: Option<&str>,
    words: &mut Words<'_>,
) -> Result<GivenOption, IpvsArgumentError> {
    let value = match (spec.value, attached) {
        (OptionValue::None, Some(_)) => return Err(IpvsArgumentError::UnwantedValue(spec.long)),
        (OptionValue::None, None) => None,
        (_, Some(value)) => Some(value.to_owned()),
        (OptionValue::Optional(_), None) => words.next_if(|word| !word.starts_with('-')).cloned(),
        (OptionValue::Required(_), None) => {
            let value = words.next().ok_or(IpvsArgumentError::MissingValue(spec.long))?;
            Some(value.clone())
        }
    };
    Ok(GivenOption { spec, value })
}

#[cfg(test)]
mod tests {
    use lvs::ipvs::{IpvsForwarding, IpvsProtocol};

    use super::*;

    fn parse(line: &str) -> Result<IpvsArguments, IpvsArgumentError> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        IpvsArguments::parse(&words)
    }

    #[test]
    fn values_are_in_the_same_word_or_in_the_next_one() {
        for line in [
            "-a -t 10.0.0.1:80 -r 10.0.0.2 -m -w 3",
            "-at 10.0.0.1:80 -mr10.0.0.2 -w=3",
            "--add-server --tcp-service=10.0.0.1:80 --real-server 10.0.0.2 --masquerading -w3",
            "-a -mt10.0.0.1:80 -w3 --real-server=10.0.0.2",
        ] {
            let arguments = parse(line).unwrap();
            assert_eq!(arguments.action, IpvsAction::AddServer, "{line}");
            assert_eq!(arguments.value(IpvsOption::Weight), Some(("weight", "3")), "{line}");
            let server = arguments.value(IpvsOption::Server);
            assert_eq!(server, Some(("real-server", "10.0.0.2")), "{line}");
            let service = arguments.given(IpvsOption::Service(None));
            assert_eq!(service, Some(IpvsOption::Service(Some(IpvsProtocol::Tcp))), "{line}");
            let method = arguments.given(IpvsOption::Forwarding(IpvsForwarding::DirectRouting));
            assert_eq!(method, Some(IpvsOption::Forwarding(IpvsForwarding::Nat)), "{line}");
        }
    }

    #[test]
    fn flags_are_combined_and_an_optional_value_is_no_option() {
        let arguments = parse("-Lnc").unwrap();
        assert!(arguments.has(IpvsOption::Numeric) && arguments.has(IpvsOption::Connections));
        for (line, value) in [
            ("-A -t a:1 -p -s rr", None),
            ("-A -t a:1 -s rr -p", None),
            ("-A -t a:1 -p 60 -s rr", Some(("persistent", "60"))),
            ("-A -t a:1 -p60 -s rr", Some(("persistent", "60"))),
            ("-A -t a:1 --persistent=60", Some(("persistent", "60"))),
        ] {
            let arguments = parse(line).unwrap();
            assert!(arguments.has(IpvsOption::Persistent), "{line}");
            assert_eq!(arguments.value(IpvsOption::Persistent), value, "{line}");
        }
        let set = parse("--set 900 0 300").unwrap();
        assert_eq!(set.rest, ["900", "0", "300"]);
        assert_eq!(parse("--start-daemon backup").unwrap().action_value, "backup");
        assert_eq!(parse("-h -L --sort").unwrap().action, IpvsAction::Help);
    }

    #[test]
    fn wrong_options_are_refused_with_the_exit_code_of_ipvsadm() {
        for (line, code, text) in [
            ("", 255, "the first option must be a command, such as --list; -h lists the commands"),
            (
                "-n -L",
                255,
                "the first option must be a command, such as --list; -h lists the commands",
            ),
            ("-q", 255, "there is no option -q; -h lists the options"),
            ("-L --nosuch", 255, "there is no option --nosuch; -h lists the options"),
            ("-A -t", 255, "the option --tcp-service needs a value"),
            ("-L --numeric=1", 255, "the option --numeric takes no value"),
            (
                "-L -A",
                2,
                "the command --add-service follows the command --list: one command at a time is possible",
            ),
            ("-L -n -n", 2, "--numeric is given twice"),
            (
                "-A -s rr",
                2,
                "--add-service needs --tcp-service or --udp-service or --sctp-service or --fwmark-service",
            ),
            ("-a -t a:1", 2, "--add-server needs --real-server"),
            ("-A -t a:1 -w 1", 2, "--add-service takes no --weight"),
            ("-C -n", 2, "--clear takes no --numeric"),
            ("-L -c --timeout", 2, "--connection and --timeout exclude each other"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.exit_code()), (text, code), "{line}");
        }
        let twice = parse("-A -t a:1 -u a:1").unwrap_err();
        assert!(matches!(twice, IpvsArgumentError::Repeated(_)), "{twice}");
    }
}
