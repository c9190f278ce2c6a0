//! What ends the program with an error, and its exit codes.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use lvs::director::{DirectorConfigError, DirectorError, ImportError};
use lvs::forward::handover::HandoverError;
use lvs::packet::PacketError;

use crate::ipvs::IpvsCommandError;
use crate::output;
use crate::real_server::RealServerError;

/// An error of a subcommand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Config(#[from] DirectorConfigError),
    #[error(transparent)]
    Director(#[from] DirectorError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error(transparent)]
    RealServer(#[from] RealServerError),
    /// What a start would refuse.
    #[error("{}", .0.iter().map(|error| with_causes(error)).collect::<Vec<_>>().join("\n"))]
    Refusals(Vec<DirectorError>),
    #[error("cannot use the sockets of the service manager")]
    Sockets(#[from] HandoverError),
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot start the web servers of the demonstration")]
    DemoServer(#[source] io::Error),
    #[error("the director has ended by a fault of its own, which the log shows")]
    DirectorEnded,
    #[error("cannot read {}", path.display())]
    ReadFile { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    WriteFile { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot use the terminal; `lvs ctl list` needs none")]
    Terminal(#[source] io::Error),
    #[error(
        "the address {admin:?} of the director's admin server, the token, or the name of --as is malformed"
    )]
    Request { admin: String, source: hyper::http::Error },
    #[error(
        "cannot connect to the director at {admin} (does it run, and is `[admin] listen` this address?)"
    )]
    Connect { admin: String, source: hyper_util::client::legacy::Error },
    #[error("cannot read the answer of the director at {admin}")]
    Answer { admin: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the director at {admin} answered {status}")]
    Status { admin: String, status: hyper::StatusCode },
    /// The director's own words.
    #[error("{0}")]
    Refused(String),
    #[error("the director has no service {0:?}")]
    UnknownService(String),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Ipvs(#[from] IpvsCommandError),
}

impl CliError {
    /// Returns the exit code of the program.
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Ipvs(error) => error.exit_code().into(),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Prints an error, and returns the exit code.
pub(crate) fn exit_code(result: Result<(), CliError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // As of `lvs ctl list | head -1`: the reader has what it wanted.
        Err(CliError::Output(error) | CliError::Terminal(error))
            if error.kind() == io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in with_causes(&error).lines() {
                output::complain(&format!("error: {line}\n"));
            }
            error.exit_code()
        }
    }
}

/// Returns an error with its causes; a cause that the error prints already is not repeated.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.ends_with(&cause) { text } else { format!("{text}: {cause}") }
    })
}
