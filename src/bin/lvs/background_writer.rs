//! A writer that never blocks its callers, for standard output and standard error.
//!
//! A pipe whose reader has stopped reading blocks every writer, and the tasks that check servers, forward
//! connections and handle signals all write lines. So a thread of its own writes, from a bounded queue;
//! lines beyond the bound are dropped and counted. `tracing-appender` has such a writer, but reports
//! neither that lines were dropped nor that the reader has gone, and brings a calendar along.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most bytes that wait to be written.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// How long to wait for a descriptor that does not block and has no room.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Writes whole lines to a descriptor. A clone writes to the same queue.
#[derive(Clone)]
pub(crate) struct BackgroundWriter {
    shared: Arc<WriterShared>,
    dropped_lines: Arc<AtomicU64>,
}

#[derive(Default)]
struct WriterShared {
    queue: Mutex<LineQueue>,
    /// Signals that there is something to write, and that everything is written.
    changed: Condvar,
}

#[derive(Default)]
struct LineQueue {
    bytes: Vec<u8>,
    /// Lines dropped since the last report.
    unreported: u64,
    is_writing: bool,
    /// The reader has gone, or the descriptor is closed.
    is_broken: bool,
}

impl BackgroundWriter {
    /// Starts the thread that writes to a duplicate of a descriptor. It calls `report` with the number of
    /// lines that were dropped, once it can write again.
    ///
    /// Without a descriptor or a thread, every line is dropped and counted.
    pub(crate) fn start(descriptor: BorrowedFd<'_>, report: fn(u64)) -> Self {
        let writer = Self { shared: Arc::default(), dropped_lines: Arc::default() };
        // A duplicate: the locks of `std::io` would be held while a write blocks.
        let started = descriptor.try_clone_to_owned().and_then(|descriptor| {
            let (writer, mut file) = (writer.clone(), File::from(descriptor));
            let thread = thread::Builder::new().name("lvs-output".to_owned());
            thread.spawn(move || {
                // A panic, as of a reporter, costs a batch and not the log.
                let mut write = || writer.write_queue(&mut file, report);
                while catch_unwind(AssertUnwindSafe(&mut write)).is_err() {}
            })
        });
        writer.lock().is_broken = started.is_err();
        writer
    }

    /// Adds text of one or more whole lines to the queue; if the queue is full, drops it.
    ///
    /// # Errors
    /// `BrokenPipe` if nobody reads the descriptor any more.
    pub(crate) fn push(&self, text: &[u8]) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.is_broken {
            self.count_dropped(text);
            return Err(ErrorKind::BrokenPipe.into());
        }
        if queue.bytes.len() + text.len() > MAX_QUEUED_BYTES {
            queue.unreported += self.count_dropped(text);
            return Ok(());
        }
        let was_empty = queue.bytes.is_empty();
        queue.bytes.extend_from_slice(text);
        drop(queue);
        if was_empty {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Returns the counter of the lines that were dropped.
    pub(crate) fn dropped_lines(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped_lines)
    }

    /// Waits until everything is written, for `limit` at most.
    pub(crate) fn flush(&self, limit: Duration) {
        let is_busy = |queue: &mut LineQueue| {
            !queue.is_broken && (queue.is_writing || !queue.bytes.is_empty())
        };
        // A poisoned lock has nothing that is worth a wait.
        let _ = self.shared.changed.wait_timeout_while(self.lock(), limit, is_busy);
    }

    fn count_dropped(&self, text: &[u8]) -> u64 {
        let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.dropped_lines.fetch_add(lines, Ordering::Relaxed);
        lines
    }

    fn write_queue(&self, file: &mut File, report: fn(u64)) {
        loop {
            let (batch, unreported) = self.next_batch();
            match write_whole(file, &batch) {
                Ok(()) if unreported > 0 => report(unreported),
                Ok(()) => {}
                Err((rest, error)) => {
                    let lines = self.count_dropped(rest);
                    let mut queue = self.lock();
                    queue.unreported += lines + unreported;
                    if matches!(error.kind(), ErrorKind::BrokenPipe) {
                        let waiting = std::mem::take(&mut queue.bytes);
                        self.count_dropped(&waiting);
                        queue.is_broken = true;
                        self.shared.changed.notify_all();
                        return;
                    }
                }
            }
        }
    }

    /// Waits for something to write.
    fn next_batch(&self) -> (Vec<u8>, u64) {
        let mut queue = self.lock();
        queue.is_writing = false;
        self.shared.changed.notify_all();
        let queue = self.shared.changed.wait_while(queue, |queue| queue.bytes.is_empty());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.is_writing = true;
        (std::mem::take(&mut queue.bytes), std::mem::take(&mut queue.unreported))
    }

    fn lock(&self) -> MutexGuard<'_, LineQueue> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for BackgroundWriter {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text).map(|()| text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes everything; an error comes with what is left.
fn write_whole<'a>(file: &mut File, mut bytes: &'a [u8]) -> Result<(), (&'a [u8], io::Error)> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err((bytes, ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                // Another process that has the same pipe or terminal has made it non-blocking.
                ErrorKind::WouldBlock => thread::sleep(RETRY_INTERVAL),
                _ => return Err((bytes, error)),
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_panic_of_the_reporter_does_not_end_the_writer() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let log = BackgroundWriter::start(writer.as_fd(), |_| panic!("the reporter"));
        drop(writer);
        // More than the pipe and the queue hold together: lines are dropped, and reported.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        while log.dropped_lines().load(Ordering::Relaxed) == 0 {
            log.push(&line).expect("a reader");
        }
        let mut read = [0; 1 << 16];
        let mut tail = Vec::new();
        let mut is_sent = false;
        while !tail.ends_with(b"the end\n") {
            let count = reader.read(&mut read).expect("the pipe is open");
            assert!(count > 0, "the writer has ended");
            tail = [&tail[tail.len().saturating_sub(8)..], &read[..count]].concat();
            // Once there is room again.
            is_sent = is_sent || {
                let dropped = log.dropped_lines().load(Ordering::Relaxed);
                log.push(b"the end\n").expect("a reader");
                log.dropped_lines().load(Ordering::Relaxed) == dropped
            };
        }
    }
}
