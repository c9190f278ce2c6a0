//! What a system error says about: this machine, or the other side.

use std::io;

use rustix::io::Errno;

/// Tells whether an error is a shortage of this machine, and says nothing about the backend.
pub(super) fn is_local_error(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[
            Errno::MFILE,
            Errno::NFILE,
            Errno::NOBUFS,
            Errno::NOMEM,
            Errno::NOSPC,
            Errno::ADDRNOTAVAIL,
            // From `connect(2)`: there is no free local port.
            Errno::AGAIN,
        ],
    )
}

/// Tells whether this machine forbids what was tried: by its firewall, its routes, or for lack of a
/// capability.
pub(super) fn is_forbidden_error(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::ACCESS, Errno::PERM])
}

/// Tells whether an error on a socket to a backend means that the backend is unreachable.
pub(super) fn is_unreachable_error(error: &io::Error) -> bool {
    is_one_of(
        error,
        &[
            Errno::CONNREFUSED,
            Errno::HOSTUNREACH,
            Errno::NETUNREACH,
            Errno::HOSTDOWN,
            Errno::NETDOWN,
            Errno::NOPROTOOPT,
            Errno::PROTO,
            Errno::OPNOTSUPP,
        ],
    )
}

/// Tells whether the kernel could not segment a message: the device does not support it, or a segment
/// exceeds the path MTU.
pub(super) fn is_segmentation_error(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::IO, Errno::INVAL, Errno::MSGSIZE, Errno::OPNOTSUPP])
}

/// Tells whether a failed accept concerns only the client that was to be accepted and has left.
pub(super) fn is_client_error(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::CONNABORTED, Errno::CONNRESET, Errno::INTR])
}

fn is_one_of(error: &io::Error, errors: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| errors.contains(&errno))
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_of_this_machine_is_not_an_error_of_the_backend() {
        for local in [Errno::NFILE, Errno::MFILE, Errno::NOMEM, Errno::AGAIN, Errno::ADDRNOTAVAIL] {
            let local = local.into();
            assert!(is_local_error(&local) && !is_unreachable_error(&local), "{local}");
        }
        for remote in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH] {
            let remote = remote.into();
            assert!(is_unreachable_error(&remote) && !is_local_error(&remote), "{remote}");
        }
    }
}
