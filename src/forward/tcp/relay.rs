//! Carries the bytes between two streams, both ways at once, until both have ended.
//!
//! # How bytes move
//! Small messages are copied through one buffer that all connections of a thread share: nothing is
//! allocated while the other side takes what it is given. A direction that proves to be bulk is
//! spliced: the kernel hands the pages on and this process never sees them. What the other side does
//! not take is held, at most one buffer or pipe in each direction, and nothing more is read until it
//! has gone: that is the back-pressure.
//!
//! # How it ends
//! The end of one direction is passed on by `shutdown(2)` once all before it is delivered, and the
//! other direction goes on. A reset on either side ends both at once.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use super::pipe::SplicePipe;
use super::stream::{ResetOnDrop, StreamSocket};

/// The buffer that a thread's connections share.
const COPY_BUFFER_SIZE: usize = 64 * 1024;
/// A read of this size speaks for bulk.
const MIN_LARGE_READ: usize = 16 * 1024;
/// After so many times that in large reads, one after the other, a direction is bulk.
const MIN_BULK_STREAK: u8 = 4;
/// A splice that moves less says that the bulk is over.
const MIN_BULK_SPLICE: usize = 4 * 1024;
/// How often a direction may read before others have their turn.
const MAX_READS_PER_POLL: usize = 32;

thread_local! {
    static COPY_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; COPY_BUFFER_SIZE].into());
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RelaySide {
    Client,
    Backend,
}

/// A connection broke, and on which side.
#[derive(Debug)]
pub(super) struct RelayError {
    pub(super) side: RelaySide,
    pub(super) error: io::Error,
}

/// Two streams, and what is on its way between them.
#[derive(Debug)]
pub(super) struct Relay {
    client: ResetOnDrop,
    backend: ResetOnDrop,
    to_backend: RelayDirection,
    to_client: RelayDirection,
}

/// What is held for one stream, and how far the other has come.
#[derive(Debug, Default)]
struct RelayDirection {
    pending: PendingData,
    /// Bytes handed on, until somebody asks: no more than a poll can move.
    bytes_relayed: u32,
    /// What large reads have brought, one after the other, in units of [`MIN_LARGE_READ`].
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

/// What the other side has not taken yet.
#[derive(Debug)]
struct UnsentBytes {
    bytes: Box<[u8]>,
    /// So many have gone.
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
    /// The source has ended; what is held must still go.
    Flushing,
    Ended,
}

impl Relay {
    /// Between two streams; `first` are bytes of the client that were read already.
    pub(super) fn new(client: ResetOnDrop, server: ResetOnDrop, first: Vec<u8>) -> Self {
        let held =
            if first.is_empty() { PendingData::Empty } else { PendingData::from_bytes(&first) };
        let up = RelayDirection { pending: held, ..RelayDirection::default() };
        Self { client, backend: server, to_backend: up, to_client: RelayDirection::default() }
    }

    /// Bytes handed to the server and to the client since this was last asked, which is to be after
    /// each poll.
    pub(super) fn take_bytes_relayed(&mut self) -> [u64; 2] {
        [&mut self.to_backend, &mut self.to_client]
            .map(|way| u64::from(std::mem::take(&mut way.bytes_relayed)))
    }

    /// The client again, for another server, unless something is on its way or has ended. It is for
    /// the caller to know that nothing has passed.
    pub(super) fn into_client(self) -> Option<ResetOnDrop> {
        let untouched =
            !self.is_half_closed() && self.to_backend.is_idle() && self.to_client.is_idle();
        untouched.then_some(self.client)
    }

    /// Has either side ended?
    pub(super) fn is_half_closed(&self) -> bool {
        self.to_backend.stage != DirectionStage::Open
            || self.to_client.stage != DirectionStage::Open
    }

    /// Has the server said all, and the client got it?
    pub(super) fn has_backend_ended(&self) -> bool {
        self.to_client.stage == DirectionStage::Ended
    }

    /// Goes as far as it can; `Ready` when both sides have ended or one broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RelayError>> {
        let broke = |side| move |error| RelayError { side, error };
        let (client, server) =
            ((RelaySide::Client, &*self.client), (RelaySide::Backend, &*self.backend));
        let up = self.to_backend.poll(
            cx,
            client,
            server,
            self.to_client.stage == DirectionStage::Ended,
        )?;
        let down = self.to_client.poll(
            cx,
            server,
            client,
            self.to_backend.stage == DirectionStage::Ended,
        )?;
        match (up.is_ready(), down.is_ready()) {
            (true, true) => {
                self.client.is_closed_in_order = true;
                self.backend.is_closed_in_order = true;
                Poll::Ready(Ok(()))
            }
            // Nobody reads from whoever has ended, or whose bytes are not taken; it may still reset.
            (up, down) => {
                if (up || !self.to_backend.is_idle())
                    && let Poll::Ready(error) = self.client.poll_reset(cx)
                {
                    return Poll::Ready(Err(broke(RelaySide::Client)(error)));
                }
                if (down || !self.to_client.is_idle())
                    && let Poll::Ready(error) = self.backend.poll_reset(cx)
                {
                    return Poll::Ready(Err(broke(RelaySide::Backend)(error)));
                }
                Poll::Pending
            }
        }
    }
}

impl RelayDirection {
    /// Goes as far as it can. The last direction to end does not say so: the close will.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from_side, from): (RelaySide, &StreamSocket),
        (to_side, to): (RelaySide, &StreamSocket),
        is_last: bool,
    ) -> Poll<Result<(), RelayError>> {
        let source = |error| RelayError { side: from_side, error };
        let sink = |error| RelayError { side: to_side, error };
        for _ in 0..MAX_READS_PER_POLL {
            ready!(self.poll_flush(cx, to)).map_err(sink)?;
            match self.stage {
                DirectionStage::Open => {}
                DirectionStage::Flushing => {
                    if !is_last {
                        to.shutdown_write().map_err(sink)?;
                    }
                    self.stage = DirectionStage::Ended;
                    return Poll::Ready(Ok(()));
                }
                DirectionStage::Ended => return Poll::Ready(Ok(())),
            }
            let moved = match self.splice_pipe() {
                Some(pipe) => match from.poll_splice_into(cx, pipe).map_err(source)? {
                    Poll::Ready(Some(moved)) => Poll::Ready(moved),
                    Poll::Ready(None) => {
                        // By reads again, until they have shown anew that it is bulk.
                        self.large_reads = 0;
                        continue;
                    }
                    Poll::Pending => Poll::Pending,
                },
                None => {
                    let copied =
                        COPY_BUFFER.with_borrow_mut(|buffer| self.poll_copy(cx, from, to, buffer));
                    copied.map_err(|(of_source, error)| match of_source {
                        true => source(error),
                        false => sink(error),
                    })?
                }
            };
            let Poll::Ready(moved) = moved else {
                self.release_empty_pipe();
                return Poll::Pending;
            };
            self.update_after_read(moved);
        }
        // There is more; others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing to deliver, and the source silent.
    fn is_idle(&self) -> bool {
        matches!(self.pending, PendingData::Empty)
    }

    /// Hands on what is held.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &StreamSocket) -> Poll<io::Result<()>> {
        loop {
            let sent = match &mut self.pending {
                PendingData::Bytes(rest) => {
                    let sent = ready!(to.poll_send(cx, &rest.bytes[rest.sent..]))?;
                    rest.sent += sent;
                    if rest.sent == rest.bytes.len() {
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

    /// Reads once and hands on what the other side takes at once; says how much was read. Errors come
    /// with `true` if they are the source's.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &StreamSocket,
        to: &StreamSocket,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, (bool, io::Error)>> {
        let read = ready!(from.poll_recv(cx, buffer)).map_err(|error| (true, error))?;
        let bytes = &buffer[..read];
        if !bytes.is_empty() {
            let sent = match to.poll_send(cx, bytes) {
                Poll::Ready(sent) => sent.map_err(|error| (false, error))?,
                Poll::Pending => 0,
            };
            self.bytes_relayed = self.bytes_relayed.saturating_add(sent as u32);
            if sent < read {
                self.pending = PendingData::from_bytes(&bytes[sent..]);
            }
        }
        Poll::Ready(Ok(read))
    }

    /// The pipe to splice through, if the direction is bulk and there is one.
    fn splice_pipe(&mut self) -> Option<&mut SplicePipe> {
        if self.large_reads < MIN_BULK_STREAK {
            self.release_empty_pipe();
            return None;
        }
        if matches!(self.pending, PendingData::Empty) {
            match SplicePipe::acquire() {
                Some(pipe) => self.pending = PendingData::Pipe(pipe),
                // Not asked for again with every read.
                None => self.large_reads = 0,
            }
        }
        match &mut self.pending {
            PendingData::Pipe(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// Gives an empty pipe to whoever needs one.
    fn release_empty_pipe(&mut self) {
        if matches!(&self.pending, PendingData::Pipe(pipe) if pipe.is_empty())
            && let PendingData::Pipe(pipe) = std::mem::take(&mut self.pending)
        {
            pipe.return_to_pool();
        }
    }

    /// Learns from the size of a read.
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
