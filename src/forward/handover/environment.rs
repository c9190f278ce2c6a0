//! Sockets that a service manager opened before the start of this process (`sd_listen_fds(3)`).

use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{HandoverError, MAX_SOCKETS, is_valid_name};
use crate::sys::inherited_fd;

/// The first descriptor behind standard input, output and error.
const FIRST_INHERITED_FD: RawFd = 3;

/// The name that systemd gives a socket without a name.
const UNNAMED_SOCKET: &str = "unknown";

/// Whether the descriptors have an owner in this process.
static SOCKETS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the sockets that the service manager opened for this process.
///
/// Reads `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` as `sd_listen_fds_with_names(3)` does, and
/// leaves them unchanged. Empty if there are no sockets, if they are for another process, and at the
/// second call, since the sockets have an owner then. Child processes do not inherit the sockets.
///
/// Call it early: no other code of the process may use the descriptors from 3 on by number.
///
/// # Errors
/// [`HandoverError::InvalidEnvironment`] and [`TooManySockets`](HandoverError::TooManySockets) if a
/// variable is invalid, and then no socket is taken;
/// [`InheritedDescriptor`](HandoverError::InheritedDescriptor) if a descriptor is not open.
pub fn from_environment() -> Result<Vec<(String, OwnedFd)>, HandoverError> {
    let variable = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let environment = ListenEnvironment {
        pid: variable(LISTEN_PID),
        count: variable(LISTEN_FDS),
        names: variable(LISTEN_FDNAMES),
    };
    let names = environment.socket_names(std::process::id())?;
    if names.is_empty() || SOCKETS_TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    (FIRST_INHERITED_FD..)
        .zip(names)
        .map(|(number, name)| match inherited_fd::adopt_fd(number) {
            Ok(descriptor) => Ok((name, descriptor)),
            Err(source) => Err(HandoverError::InheritedDescriptor { number, source }),
        })
        .collect()
}

const LISTEN_PID: &str = "LISTEN_PID";
const LISTEN_FDS: &str = "LISTEN_FDS";
const LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";

/// The environment variables for inherited sockets.
#[derive(Clone, Debug, Default)]
pub(super) struct ListenEnvironment {
    pub(super) pid: Option<String>,
    pub(super) count: Option<String>,
    pub(super) names: Option<String>,
}

impl ListenEnvironment {
    /// Returns the names of the sockets for this process, in the order of their descriptors.
    pub(super) fn socket_names(self, own_pid: u32) -> Result<Vec<String>, HandoverError> {
        let (Some(pid), Some(count)) = (self.pid, self.count) else { return Ok(Vec::new()) };
        if parse_number(LISTEN_PID, pid)? != own_pid as usize {
            return Ok(Vec::new());
        }
        let count = parse_number(LISTEN_FDS, count)?;
        if count > MAX_SOCKETS {
            return Err(HandoverError::TooManySockets { count });
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let Some(names) = self.names else { return Ok(vec![UNNAMED_SOCKET.to_owned(); count]) };
        let list: Vec<String> = names.split(':').map(str::to_owned).collect();
        match list.len() == count && list.iter().all(|name| is_valid_name(name)) {
            true => Ok(list),
            false => {
                Err(HandoverError::InvalidEnvironment { variable: LISTEN_FDNAMES, value: names })
            }
        }
    }
}

fn parse_number(variable: &'static str, value: String) -> Result<usize, HandoverError> {
    value.parse().map_err(|_| HandoverError::InvalidEnvironment { variable, value })
}
