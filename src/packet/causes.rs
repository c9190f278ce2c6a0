//! The errors of the library that loads programs, whose causes say what the matter is.

use std::io;

use rustix::thread::{CapabilitySet, capabilities};

use super::error::PacketError;

/// Returns an error's text with those of its causes, which the library leaves out.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// Returns the error with which the kernel did not load something.
pub(super) fn load_error(error: &(dyn std::error::Error + 'static)) -> PacketError {
    // Older kernels refuse a process without this capability what others may, in the words of their verifier.
    let is_refusal = |code: &i32| *code == libc::EPERM || (*code == libc::EACCES && !has_perfmon());
    if let Some(code) = system_errors(error).find(is_refusal) {
        let source = io::Error::from_raw_os_error(code);
        return PacketError::Capability { action: "loading the program", source };
    }
    PacketError::Load { reason: with_causes(error) }
}

/// How often a program is loaded whose verification signals interrupt.
const MAX_LOAD_ATTEMPTS: usize = 5;

/// Loads a program. The kernel ends the verification with `EAGAIN` when the thread has a signal to handle, such as that of
/// a child which has ended: then it is loaded again.
pub(super) fn load_with_retries<E: std::error::Error + 'static>(
    mut load: impl FnMut() -> Result<(), E>,
) -> Result<(), PacketError> {
    let is_interrupted = |error: &E| system_errors(error).any(|code| code == libc::EAGAIN);
    let mut result = load();
    for _ in 1..MAX_LOAD_ATTEMPTS {
        if !result.as_ref().is_err_and(is_interrupted) {
            break;
        }
        result = load();
    }
    result.map_err(|error| load_error(&error))
}

/// Returns the system's errors among an error and its causes.
fn system_errors(error: &(dyn std::error::Error + 'static)) -> impl Iterator<Item = i32> {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.filter_map(|error| error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error))
}

fn has_perfmon() -> bool {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    effective.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(failures: usize, errno: i32) -> (bool, usize) {
        let mut attempts = 0;
        let result = load_with_retries(|| {
            attempts += 1;
            match attempts > failures {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(errno)),
            }
        });
        (result.is_ok(), attempts)
    }

    #[test]
    fn a_verification_that_a_signal_interrupts_is_begun_again_some_times() {
        assert_eq!(load(0, libc::EAGAIN), (true, 1));
        assert_eq!(load(4, libc::EAGAIN), (true, 5));
        assert_eq!(load(9, libc::EAGAIN), (false, 5));
        assert_eq!(load(1, libc::EINVAL), (false, 1));
    }
}
