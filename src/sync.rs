//! Atomics, locks and the published pointer, in one place, so that loom can replace them.
//!
//! With `--cfg lvs_loom` every type here is loom's, and the tests in `tests/loom.rs` explore the
//! interleavings of the code that runs in production.

#[cfg(lvs_loom)]
pub(crate) use self::loom_sync::*;
#[cfg(not(lvs_loom))]
pub(crate) use self::std_sync::*;

#[cfg(not(lvs_loom))]
mod std_sync {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) use arc_swap::ArcSwap;
}

#[cfg(lvs_loom)]
mod loom_sync {
    use std::sync::Arc;

    use loom::sync::atomic;

    pub(crate) use loom::sync::atomic::Ordering;
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// Runs an access with a fence before it if its ordering is `SeqCst`.
    ///
    /// Loom treats a `SeqCst` access as `AcqRel`, and would reject every argument that needs a single
    /// order of all of them, but it models `SeqCst` fences. A fence before the access stands for its
    /// ordering, as compilers emit it for machines whose only strong instruction is a fence. A second
    /// fence after the access would hide that the next access is too weak.
    fn with_seq_cst_fence<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
        if order == Ordering::SeqCst {
            atomic::fence(Ordering::SeqCst);
        }
        access()
    }

    macro_rules! ordered_atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(atomic::$name);

            #[allow(dead_code, reason = "every method that the crate may use")]
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    with_seq_cst_fence(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    with_seq_cst_fence(order, || self.0.store(value, order));
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    with_seq_cst_fence(order, || self.0.swap(value, order))
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    order: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    with_seq_cst_fence(order, || self.0.compare_exchange(from, to, order, failed))
                }

                pub(crate) fn compare_exchange_weak(
                    &self,
                    from: $value,
                    to: $value,
                    order: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    self.compare_exchange(from, to, order, failed)
                }
            }
        };
        ($name:ident, $value:ty, $($fetch:ident)*) => {
            ordered_atomic!($name, $value);

            #[allow(dead_code, reason = "every method that the crate may use")]
            impl $name {
                $(pub(crate) fn $fetch(&self, value: $value, order: Ordering) -> $value {
                    with_seq_cst_fence(order, || self.0.$fetch(value, order))
                })*

                pub(crate) fn fetch_update(
                    &self,
                    order: Ordering,
                    failed: Ordering,
                    mut step: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut seen = self.load(failed);
                    while let Some(next) = step(seen) {
                        match self.compare_exchange(seen, next, order, failed) {
                            Ok(before) => return Ok(before),
                            Err(now) => seen = now,
                        }
                    }
                    Err(seen)
                }
            }
        };
    }

    ordered_atomic!(AtomicBool, bool);
    ordered_atomic!(AtomicU32, u32, fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min);
    ordered_atomic!(AtomicU64, u64, fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min);
    ordered_atomic!(AtomicUsize, usize, fetch_add fetch_sub fetch_and fetch_or fetch_max fetch_min);

    /// Models the part of `arc_swap::ArcSwap` that the crate uses, by a lock held for one pointer copy.
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

/// Locks a mutex and ignores poison: every critical section of this crate leaves its data consistent
/// before it calls a closure, so a panic of the closure cannot have broken it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
