//! What a program gives to a service and a text cannot: a check and a callback of its own.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::forward::ConnectionRecord;
use crate::health::{Check, TimedCheck};

/// A check of the program. Two are equal if they are clones of the same one.
#[derive(Clone, Debug)]
pub(super) struct CustomCheck(pub(super) TimedCheck);

impl CustomCheck {
    pub(super) fn new(check: impl Check) -> Self {
        Self(TimedCheck::new(check))
    }
}

impl PartialEq for CustomCheck {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_same_check(&other.0)
    }
}

impl Eq for CustomCheck {}

/// A callback of the program for connections that have ended. Two are equal if they are clones of the
/// same one.
#[derive(Clone)]
pub(crate) struct ServiceOnEnd(Arc<dyn Fn(&ConnectionRecord) + Send + Sync>);

impl ServiceOnEnd {
    pub(super) fn new(callback: impl Fn(&ConnectionRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(callback))
    }

    pub(crate) fn call(&self, record: &ConnectionRecord) {
        (self.0)(record);
    }
}

impl PartialEq for ServiceOnEnd {
    fn eq(&self, other: &Self) -> bool {
        ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl fmt::Debug for ServiceOnEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceOnEnd")
    }
}
