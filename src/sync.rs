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

    use loom::sync::atomic;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::Ordering;

    /// Loom takes a `SeqCst` access for `AcqRel`, and would find fault with every argument that
    /// rests on one order of all of them; its `SeqCst` fences are real. One ahead of each such
    /// access stands for it, as compilers do it for machines whose only strong tool is a fence. One
    /// behind as well would hide that the next access is too weak.
    fn ordered<R>(order: Ordering, access: impl FnOnce() -> R) -> R {
        if order == Ordering::SeqCst {
            atomic::fence(Ordering::SeqCst);
        }
        access()
    }

    macro_rules! ordered_atomic {
        ($name:ident, $value:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(atomic::$name);

            #[allow(dead_code, reason = "the whole of what the crate may use, whatever it uses now")]
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self(atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $value {
                    ordered(order, || self.0.load(order))
                }

                pub(crate) fn store(&self, value: $value, order: Ordering) {
                    ordered(order, || self.0.store(value, order));
                }

                pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.swap(value, order))
                }

                pub(crate) fn compare_exchange(
                    &self,
                    from: $value,
                    to: $value,
                    order: Ordering,
                    failed: Ordering,
                ) -> Result<$value, $value> {
                    ordered(order, || self.0.compare_exchange(from, to, order, failed))
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

            #[allow(dead_code, reason = "the whole of what the crate may use, whatever it uses now")]
            impl $name {
                $(pub(crate) fn $fetch(&self, value: $value, order: Ordering) -> $value {
                    ordered(order, || self.0.$fetch(value, order))
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
pub(crate) type MutexGuard<'a, T> = std::sync::MutexGuard<'a, T>;
#[cfg(lvs_loom)]
pub(crate) type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

/// Locks, ignoring poison: every critical section of this crate leaves its data whole before it
/// calls out, so a panic of a caller's closure cannot have torn it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
