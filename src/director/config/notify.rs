//! The programs that run at an event: the keys `notify`, `notify_up` and the like.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::error::ConfigProblem;
use super::table::config_table;
use super::value::apply_if_some;
use crate::ProgramUser;
use crate::health::{CommandCheck, CommandCheckError};
use crate::vrrp::NotifyCommand;

config_table! {
/// A builder of a [`NotifyCommandConfig`].
builder NotifyCommandConfigBuilder;

/// A program that runs at an event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct NotifyCommandConfig {
    /// The program, a path or a name in `PATH`, and its arguments. It runs without a shell.
    command: Vec<String>,
    /// The user that the program runs as, by name or number. Default: the director's user.
    user: Option<String>,
    /// The group that the program runs as, by name or number; requires `user`. Default: the user's
    /// own.
    group: Option<String>,
}
}

impl NotifyCommandConfig {
    /// Returns a builder of a program with its arguments.
    pub fn builder<W: Into<String>>(
        command: impl IntoIterator<Item = W>,
    ) -> NotifyCommandConfigBuilder {
        let command = command.into_iter().map(Into::into).collect();
        NotifyCommandConfigBuilder { table: Self { command, user: None, group: None } }
    }

    fn to_command(&self) -> NotifyCommand {
        let command = NotifyCommand::new(&self.command);
        let user = self.user.clone().map(ProgramUser::new);
        let user = user.map(|user| apply_if_some(user, self.group.clone(), ProgramUser::group));
        apply_if_some(command, user, NotifyCommand::run_as)
    }
}

/// A program and its arguments as a list of strings; or a table with the keys `command`, `user` and
/// `group`, or a list of such tables, whose programs run one after the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NotifyCommandList(Vec<NotifyCommandConfig>);

impl NotifyCommandList {
    pub(super) fn validate(&self, key: &'static str) -> Result<(), ConfigProblem> {
        for command in &self.0 {
            if command.command.first().is_none_or(String::is_empty) {
                return Err(ConfigProblem::at_key(key, "the list must begin with a program"));
            }
            if command.user.is_none() && command.group.is_some() {
                return Err(ConfigProblem::at_key(key, "`group` requires `user`"));
            }
        }
        Ok(())
    }

    /// Returns why a program of the list cannot start now; reads the beginning of its file.
    pub(super) fn missing_programs(&self) -> impl Iterator<Item = CommandCheckError> + '_ {
        let programs = self.0.iter().filter_map(|command| command.command.first());
        programs.filter_map(|program| CommandCheck::new(program).validated().err())
    }

    pub(crate) fn to_commands(&self) -> impl Iterator<Item = NotifyCommand> + '_ {
        self.0.iter().map(NotifyCommandConfig::to_command)
    }
}

impl<W: Into<String>, const N: usize> From<[W; N]> for NotifyCommandList {
    fn from(command: [W; N]) -> Self {
        NotifyCommandConfig::builder(command).into()
    }
}

impl From<Vec<String>> for NotifyCommandList {
    fn from(command: Vec<String>) -> Self {
        NotifyCommandConfig::builder(command).into()
    }
}

impl From<NotifyCommandConfigBuilder> for NotifyCommandList {
    fn from(builder: NotifyCommandConfigBuilder) -> Self {
        Self(vec![builder.into()])
    }
}

impl FromIterator<NotifyCommandConfigBuilder> for NotifyCommandList {
    fn from_iter<I: IntoIterator<Item = NotifyCommandConfigBuilder>>(builders: I) -> Self {
        Self(builders.into_iter().map(Into::into).collect())
    }
}

impl<'de> Deserialize<'de> for NotifyCommandList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NotifyCommandListVisitor;
        impl<'de> Visitor<'de> for NotifyCommandListVisitor {
            type Value = NotifyCommandList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of a program and its arguments, or a table or a list of tables")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NotifyCommandList, A::Error> {
                let command = NotifyCommandConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(NotifyCommandList(vec![command]))
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut list: A,
            ) -> Result<NotifyCommandList, A::Error> {
                let (mut words, mut commands) = (Vec::new(), Vec::new());
                while let Some(element) = list.next_element()? {
                    match element {
                        WordOrCommand::Word(word) => words.push(word),
                        WordOrCommand::Command(command) => commands.push(command),
                    }
                }
                match (words.is_empty(), commands.is_empty()) {
                    (false, false) => {
                        Err(A::Error::custom("a list has strings or tables, not both"))
                    }
                    (true, false) => Ok(NotifyCommandList(commands)),
                    (_, true) => Ok(Vec::into(words)),
                }
            }
        }
        deserializer.deserialize_any(NotifyCommandListVisitor)
    }
}

/// An element of the list.
enum WordOrCommand {
    Word(String),
    Command(NotifyCommandConfig),
}

impl<'de> Deserialize<'de> for WordOrCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrCommandVisitor;
        impl<'de> Visitor<'de> for WordOrCommandVisitor {
            type Value = WordOrCommand;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a table")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<WordOrCommand, E> {
                Ok(WordOrCommand::Word(word.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WordOrCommand, A::Error> {
                NotifyCommandConfig::deserialize(MapAccessDeserializer::new(map))
                    .map(WordOrCommand::Command)
            }
        }
        deserializer.deserialize_any(WordOrCommandVisitor)
    }
}
