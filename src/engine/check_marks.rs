//! The firewall marks of the packets by which health checks reach backends at a virtual address.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::BackendId;
use crate::sync::{Mutex, lock};

/// The firewall marks by which health checks reach the backends of a service at one virtual address.
///
/// Packets of this machine to the virtual address that have a backend's mark go to this backend, by its own
/// [forwarding method](super::ForwardingMethod). The owner of a service makes the value and puts it into
/// [`EngineRequest::check_marks`](super::EngineRequest::check_marks); the engine fills it while it serves the
/// request. A clone shares the marks. Backends with [`ForwardingMethod::Nat`](super::ForwardingMethod::Nat)
/// have none.
#[derive(Clone, Debug, Default)]
pub struct CheckMarks(Arc<Mutex<Option<BTreeMap<BackendId, u32>>>>);

/// What an engine has for the checks of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CheckMark {
    /// No engine serves the virtual address.
    NotServed,
    /// The engine has no mark for the backend: it has not followed the set yet, or all marks are in use.
    Missing,
    /// The packets of the backend's checks have this mark.
    Mark(u32),
}

impl CheckMarks {
    /// Returns the mark of a backend.
    #[must_use]
    pub fn get(&self, backend: &BackendId) -> CheckMark {
        match &*lock(&self.0) {
            None => CheckMark::NotServed,
            Some(marks) => {
                marks.get(backend).map_or(CheckMark::Missing, |mark| CheckMark::Mark(*mark))
            }
        }
    }

    /// Replaces the marks. For engines; `None` says that the engine serves the address no more.
    pub fn replace(&self, marks: Option<BTreeMap<BackendId, u32>>) {
        *lock(&self.0) = marks;
    }
}
