//! Relays bytes between two streams in both directions, until both streams have ended.
//!
//! # How bytes move
//! Small messages are copied through one buffer that all connections of a thread share: nothing is
//! allocated while the receiving side accepts every write in full. A direction with bulk data is
//! spliced: the kernel moves the pages, and they are never mapped into this process. Bytes that the
//! receiving side does not accept are held, at most one buffer or pipe in each direction, and nothing
//! more is read until they are sent: that is the back-pressure.
//!
//! # How a relay ends
//! The end of one direction is passed on by `shutdown(2)` after all bytes before it are delivered,
//! and the other direction goes on. A reset on either side ends both directions at once.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::pipe::SplicePipe;
use super::stream::{ResetOnDrop, StreamSocket};

/// The size of the buffer that the connections of a thread share.
const COPY_BUFFER_SIZE: usize = 64 * 1024;
/// A read of this size or more indicates bulk data.
const MIN_LARGE_READ: usize = 16 * 1024;
/// A direction is spliced after consecutive large reads of this many times [`MIN_LARGE_READ`].
const MIN_BULK_STREAK: u8 = 4;
/// A splice that moves fewer bytes indicates that the bulk data has ended.
const MIN_BULK_SPLICE: usize = 4 * 1024;
/// How often a direction may read before other tasks are polled.
const MAX_READS_PER_POLL: usize = 32;

thread_local! {
    static COPY_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; COPY_BUFFER_SIZE].into());
}

/// A stream of a relay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RelaySide {
    Client,
    Backend,
}

/// The error of a stream, and which stream it is.
#[derive(Debug)]
pub(super) struct RelayError {
    pub(super) side: RelaySide,
    pub(super) error: io::Error,
}

/// Bytes sent to the backend and to the client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct RelayedBytes {
    pub(super) to_backend: u64,
    pub(super) to_client: u64,
}

/// Two streams, and the bytes between them that are read and not sent yet.
#[derive(Debug)]
pub(super) struct Relay {
    client: ResetOnDrop,
    backend: ResetOnDrop,
    to_backend: RelayDirection,
    to_client: RelayDirection,
}

/// The state of one direction: the bytes that are not sent yet, and whether the source has ended.
#[derive(Debug, Default)]
struct RelayDirection {
    pending: PendingData,
    /// Bytes sent since [`Relay::take_bytes_relayed`]; 32 bits hold all that one poll can move.
    bytes_relayed: u32,
    /// The bytes of consecutive large reads, in units of [`MIN_LARGE_READ`].
    large_reads: u8,
    stage: DirectionStage,
}

#[derive(Debug, Default)]
enum PendingData {
    #[default]
    Empty,
    Bytes(Box<UnsentBytes>),
    Pipe(Box<SplicePipe>),
}

/// The error of a copy, by the system call that failed.
#[derive(Debug)]
enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Bytes that the receiving side has not accepted yet.
#[derive(Debug)]
struct UnsentBytes {
    bytes: Box<[u8]>,
    /// How many of `bytes` are sent.
    sent: usize,
}

impl PendingData {
    fn from_bytes(bytes: &[u8]) -> Self {
        Self::Bytes(Box::new(UnsentBytes { bytes: bytes.into(), sent: 0 }))
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum DirectionStage {
    #[default]
    Open,
    /// The source has ended; the pending bytes are not sent yet.
    Flushing,
    Ended,
}

impl Relay {
    /// Makes a relay; `initial_bytes` go to the backend first.
    pub(super) fn new(client: ResetOnDrop, backend: ResetOnDrop, initial_bytes: Vec<u8>) -> Self {
        let pending = match initial_bytes.is_empty() {
            true => PendingData::Empty,
            false => PendingData::from_bytes(&initial_bytes),
        };
        let to_backend = RelayDirection { pending, ..RelayDirection::default() };
        Self { client, backend, to_backend, to_client: RelayDirection::default() }
    }

    /// Returns the bytes sent since the last call; to be called after each poll.
    pub(super) fn take_bytes_relayed(&mut self) -> RelayedBytes {
        let take = |direction: &mut RelayDirection| {
            u64::from(std::mem::take(&mut direction.bytes_relayed))
        };
        RelayedBytes {
            to_backend: take(&mut self.to_backend),
            to_client: take(&mut self.to_client),
        }
    }

    /// Returns the client's stream, to be relayed to another backend; `None` if bytes are pending or
    /// a side has ended. The caller must know that no byte was relayed.
    pub(super) fn into_client(self) -> Option<ResetOnDrop> {
        let is_untouched =
            !self.is_half_closed() && self.to_backend.is_idle() && self.to_client.is_idle();
        is_untouched.then_some(self.client)
    }

    /// Tells whether either side has ended.
    pub(super) fn is_half_closed(&self) -> bool {
        self.to_backend.stage != DirectionStage::Open
            || self.to_client.stage != DirectionStage::Open
    }

    /// Tells whether the backend has ended and all its bytes are sent to the client.
    pub(super) fn has_backend_ended(&self) -> bool {
        self.to_client.stage == DirectionStage::Ended
    }

    /// Relays until it would block; `Ready` when both sides have ended or a side broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let broke = |side, error| Poll::Ready(Err(RelayError { side, error }));
        let client = (RelaySide::Client, &*self.client);
        let backend = (RelaySide::Backend, &*self.backend);
        let has_backend_ended = self.to_client.stage == DirectionStage::Ended;
        let to_backend = self.to_backend.poll(cx, client, backend, has_backend_ended)?;
        let has_client_ended = self.to_backend.stage == DirectionStage::Ended;
        let to_client = self.to_client.poll(cx, backend, client, has_client_ended)?;
        match (to_backend.is_ready(), to_client.is_ready()) {
            (true, true) => {
                self.client.is_closed_in_order = true;
                self.backend.is_closed_in_order = true;
                Poll::Ready(Ok(()))
            }
            // A stream that has ended, or whose bytes are pending, is not read; a reset of the stream
            // must be noticed all the same.
            (is_client_done, is_backend_done) => {
                if (is_client_done || !self.to_backend.is_idle())
                    && let Poll::Ready(error) = self.client.poll_reset(cx)
                {
                    return broke(RelaySide::Client, error);
                }
                if (is_backend_done || !self.to_client.is_idle())
                    && let Poll::Ready(error) = self.backend.poll_reset(cx)
                {
                    return broke(RelaySide::Backend, error);
                }
                Poll::Pending
            }
        }
    }
}

impl RelayDirection {
    /// Relays until it would block. The last direction to end is not shut down, since both streams
    /// are closed next.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from_side, from): (RelaySide, &StreamSocket),
        (to_side, to): (RelaySide, &StreamSocket),
        is_last: bool,
    ) -> Poll<Result<(), RelayError>> {
        let read_error = |error| RelayError { side: from_side, error };
        let write_error = |error| RelayError { side: to_side, error };
        for _ in 0..MAX_READS_PER_POLL {
            ready!(self.poll_flush(cx, to)).map_err(write_error)?;
            match self.stage {
                DirectionStage::Open => {}
                DirectionStage::Flushing => {
                    if !is_last {
                        to.shutdown_write().map_err(write_error)?;
                    }
                    self.stage = DirectionStage::Ended;
                    return Poll::Ready(Ok(()));
                }
                DirectionStage::Ended => return Poll::Ready(Ok(())),
            }
            let moved = match self.splice_pipe() {
                Some(pipe) => match from.poll_splice_into(cx, pipe).map_err(read_error)? {
                    Poll::Ready(Some(moved)) => Poll::Ready(moved),
                    Poll::Ready(None) => {
                        // At an urgent mark: copied until there are enough large reads again.
                        self.large_reads = 0;
                        continue;
                    }
                    Poll::Pending => Poll::Pending,
                },
                None => {
                    let copied =
                        COPY_BUFFER.with_borrow_mut(|buffer| self.poll_copy(cx, from, to, buffer));
                    copied.map_err(|error| match error {
                        CopyError::Read(error) => read_error(error),
                        CopyError::Write(error) => write_error(error),
                    })?
                }
            };
            let Poll::Ready(moved) = moved else {
                self.release_empty_pipe();
                return Poll::Pending;
            };
            self.update_after_read(moved);
        }
        // There may be more to read; other tasks are polled first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells whether no bytes are pending and no pipe is held.
    fn is_idle(&self) -> bool {
        matches!(self.pending, PendingData::Empty)
    }

    /// Sends the pending bytes.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &StreamSocket) -> Poll<io::Result<()>> {
        loop {
            let sent = match &mut self.pending {
                PendingData::Bytes(unsent) => {
                    let sent = ready!(to.poll_send(cx, &unsent.bytes[unsent.sent..]))?;
                    unsent.sent += sent;
                    if unsent.sent == unsent.bytes.len() {
                        self.pending = PendingData::Empty;
                    }
                    sent
                }
                PendingData::Pipe(pipe) if !pipe.is_empty() => {
                    ready!(to.poll_splice_from(cx, pipe))?
                }
                PendingData::Pipe(_) | PendingData::Empty => return Poll::Ready(Ok(())),
            };
            self.bytes_relayed = self.bytes_relayed.saturating_add(sent as u32);
        }
    }

    /// Reads once, sends what the other side accepts at once, and returns how much was read.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &StreamSocket,
        to: &StreamSocket,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, CopyError>> {
        let read = ready!(from.poll_recv(cx, buffer)).map_err(CopyError::Read)?;
        let bytes = &buffer[..read];
        if !bytes.is_empty() {
            let sent = match to.poll_send(cx, bytes) {
                Poll::Ready(sent) => sent.map_err(CopyError::Write)?,
                Poll::Pending => 0,
            };
            self.bytes_relayed = self.bytes_relayed.saturating_add(sent as u32);
            if sent < read {
                self.pending = PendingData::from_bytes(&bytes[sent..]);
            }
        }
        Poll::Ready(Ok(read))
    }

    /// Returns the pipe to splice through; `None` if the direction is not bulk or no pipe is free.
    fn splice_pipe(&mut self) -> Option<&mut SplicePipe> {
        if self.large_reads < MIN_BULK_STREAK {
            self.release_empty_pipe();
            return None;
        }
        if matches!(self.pending, PendingData::Empty) {
            match SplicePipe::acquire() {
                Some(pipe) => self.pending = PendingData::Pipe(pipe),
                // No pipe is requested again until there are enough large reads anew.
                None => self.large_reads = 0,
            }
        }
        match &mut self.pending {
            PendingData::Pipe(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// Returns an empty pipe to the pool.
    fn release_empty_pipe(&mut self) {
        if matches!(&self.pending, PendingData::Pipe(pipe) if pipe.is_empty())
            && let PendingData::Pipe(pipe) = std::mem::take(&mut self.pending)
        {
            pipe.return_to_pool();
        }
    }

    /// Updates the stage and the bulk detection after a read of `moved` bytes.
    fn update_after_read(&mut self, moved: usize) {
        let spliced = matches!(self.pending, PendingData::Pipe(_));
        if moved == 0 {
            self.release_empty_pipe();
            self.stage = DirectionStage::Flushing;
        } else if moved < if spliced { MIN_BULK_SPLICE } else { MIN_LARGE_READ } {
            self.large_reads = 0;
        } else {
            let units = u8::try_from(moved / MIN_LARGE_READ).unwrap_or(u8::MAX);
            self.large_reads = self.large_reads.saturating_add(units);
        }
    }
}
