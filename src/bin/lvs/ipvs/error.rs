//! The errors of `lvs ipvs`, with the exit codes of ipvsadm.

use std::io;

use lvs::ipvs::IpvsError;

use super::options::{IpvsAction, IpvsOption};

/// A command that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IpvsCommandError {
    #[error(transparent)]
    Arguments(#[from] IpvsArgumentError),
    #[error(transparent)]
    Open(IpvsError),
    #[error(transparent)]
    Change(IpvsError),
    #[error(transparent)]
    List(#[from] IpvsError),
    #[error("cannot read the connections in {path}")]
    Connections { path: &'static str, source: io::Error },
    #[error("cannot read the lines to restore from standard input")]
    Input(#[source] io::Error),
    #[error("ipvsadm-save has no option {0} but -n, for numbers instead of names")]
    SaveOption(String),
    #[error("line {number}: {source}")]
    Line { number: usize, source: Box<Self> },
}

impl IpvsCommandError {
    /// Returns the exit code of ipvsadm.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(error) => error.exit_code(),
            Self::Open(_) => 2,
            Self::Change(_) => 255,
            Self::Line { source, .. } => source.exit_code(),
            _ => 1,
        }
    }
}

/// Arguments that are not a command of ipvsadm.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum IpvsArgumentError {
    #[error("the first option must be a command, such as --list; -h lists the commands")]
    NoCommand,
    #[error("there is no option {0}; -h lists the options")]
    UnknownOption(String),
    #[error("the option --{0} needs a value")]
    MissingValue(&'static str),
    #[error("the option --{0} takes no value")]
    UnwantedValue(&'static str),
    #[error("the command --{1} follows the command --{0}: one command at a time is possible")]
    SecondCommand(&'static str, &'static str),
    #[error("{0} is given twice")]
    Repeated(String),
    #[error("--{command} needs {option}")]
    MissingOption { option: String, command: &'static str },
    #[error("--{command} takes no {option}")]
    UnwantedOption { option: String, command: &'static str },
    #[error("{0} and {1} exclude each other")]
    Conflict(String, String),
    #[error("--{option}: {value:?} is not {allowed}")]
    Value { option: &'static str, value: String, allowed: String },
    #[error("the argument {0:?} belongs to no option")]
    UnexpectedArgument(String),
    #[error("--set needs three timeouts: TCP TCPFIN UDP")]
    ThreeTimeouts,
    #[error("a service without a port, or with port 0, must be persistent: add --persistent")]
    EveryPort,
    #[error("--ops is for UDP and marks only")]
    OnePacket,
    #[error("--ipv6 is for --fwmark-service only: other services have the family of their address")]
    Ipv6WithoutMark,
    #[error("a server of another address family than the service's needs a tunnel: add --ipip")]
    OtherFamily,
    #[error("the options of tunnels are for --ipip only")]
    NoTunnel,
    #[error("a tunnel of {kind} takes no {option}")]
    TunnelOption { kind: String, option: String },
    #[error("a tunnel of gue needs --tun-port")]
    TunnelPort,
    #[error("the flag {flag:?} is not one of the scheduler {scheduler}")]
    SchedulerFlag { flag: String, scheduler: String },
    #[error("a line of --restore cannot have --restore itself")]
    NestedRestore,
}

impl IpvsArgumentError {
    pub(super) fn value(option: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Self::Value { option, value: value.to_owned(), allowed: allowed.into() }
    }

    pub(super) fn repeated(option: &IpvsOption) -> Self {
        Self::Repeated(option.to_string())
    }

    pub(super) fn missing(option: &IpvsOption, action: IpvsAction) -> Self {
        Self::MissingOption { option: option.to_string(), command: action.name() }
    }

    pub(super) fn unwanted(option: &IpvsOption, action: IpvsAction) -> Self {
        Self::UnwantedOption { option: option.to_string(), command: action.name() }
    }

    /// Returns the exit code of ipvsadm: 255 for what its parser of options does not understand.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoCommand
            | Self::UnknownOption(_)
            | Self::MissingValue(_)
            | Self::UnwantedValue(_)
            | Self::NestedRestore => 255,
            _ => 2,
        }
    }
}
