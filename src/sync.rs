//! The atomics, locks and the published pointer, in one place, so that loom can stand in for them.
//!
//! Built with `--cfg lvs_loom` every type here is loom's, and the tests in `tests/loom.rs` explore
//! the interleavings of the very code that runs in production.

#[cfg(lvs_loom)]
pub(crate) use self::modelled::*;
#[cfg(not(lvs_loom))]
pub(crate) use self::real::*;

#[cfg(not(lvs_loom))]
mod real {
    pub(crate) use std::sync::Mutex;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

    pub(crate) use arc_swap::ArcSwap;
}

#[cfg(lvs_loom)]
mod modelled {
    use std::sync::Arc;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

    /// What the crate uses of `arc_swap::ArcSwap`, modelled by a lock held for one pointer copy.
    #[derive(Debug)]
    pub(crate) struct ArcSwap<T>(Mutex<Arc<T>>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(Mutex::new(Arc::new(value)))
        }

        pub(crate) fn load(&self) -> Arc<T> {
            self.load_full()
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            Arc::clone(&super::lock(&self.0))
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            let _old = std::mem::replace(&mut *super::lock(&self.0), value);
        }
    }
}

#[cfg(not(lvs_loom))]
type MutexGuard<'a, T> = std::sync::MutexGuard<'a, T>;
#[cfg(lvs_loom)]
type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

/// Locks, ignoring poison: every critical section of this crate leaves its data whole before it
/// calls out, so a panic of a caller's closure cannot have torn it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
