//! The thread that has the writers' lock of a set: a second lock by the same thread would wait for ever.

use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The thread that writes, or 0.
///
/// Relaxed throughout: only the thread that has stored its own number can find that number here. The
/// atomic is the standard library's under loom too, so that loom explores no more interleavings.
#[derive(Debug, Default)]
pub(super) struct WritingThread(AtomicUsize);

/// Says that a thread writes until it is dropped.
#[derive(Debug)]
pub(super) struct WritingThreadMark<'a>(&'a WritingThread);

/// Returns a number that no other running thread has.
fn current_thread() -> usize {
    thread_local! {
        static MARK: u8 = const { 0 };
    }
    MARK.with(|mark| ptr::from_ref(mark).addr())
}

impl WritingThread {
    /// Panics if this thread writes.
    pub(super) fn assert_not_current(&self) {
        // Loom runs all threads of a model on one thread of the system, and finds a deadlock itself.
        assert!(
            cfg!(lvs_loom) || self.0.load(Ordering::Relaxed) != current_thread(),
            "a set is used by a closure that edits it, or by a scheduler that compiles for it: use the \
             `SetEdit` and the arguments"
        );
    }

    /// Marks this thread, which has the writers' lock.
    pub(super) fn mark_current(&self) -> WritingThreadMark<'_> {
        self.0.store(current_thread(), Ordering::Relaxed);
        WritingThreadMark(self)
    }
}

impl Drop for WritingThreadMark<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}
