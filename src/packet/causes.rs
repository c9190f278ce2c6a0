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
    let mut cause = Some(error);
    while let Some(error) = cause {
        let system_error = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        // Older kernels refuse a process without this capability what others may, in the words of their verifier.
        let is_refused = system_error == Some(libc::EACCES) && !has_perfmon();
        if let Some(code) = system_error.filter(|code| *code == libc::EPERM || is_refused) {
            let source = io::Error::from_raw_os_error(code);
            return PacketError::Capability { action: "loading the program", source };
        }
        cause = error.source();
    }
    PacketError::Load { reason: with_causes(error) }
}

fn has_perfmon() -> bool {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    effective.intersects(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN)
}
