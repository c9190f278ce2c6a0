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

use super::pipe::Pipe;
use super::stream::{Leg, Stream};

/// The buffer that a thread's connections share.
const SCRATCH: usize = 64 * 1024;
/// A read of this size speaks for bulk.
const LARGE: usize = 16 * 1024;
/// After so many times that in large reads, one after the other, a direction is bulk.
const BULK: u8 = 4;
/// A splice that moves less says that the bulk is over.
const SMALL: usize = 4 * 1024;
/// How often a direction may read before others have their turn.
const ROUNDS: usize = 32;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// Which of the two streams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Client,
    Server,
}

/// A connection broke, and on which side.
#[derive(Debug)]
pub(super) struct Broke {
    pub(super) side: Side,
    pub(super) error: io::Error,
}

/// Two streams, and what is on its way between them.
#[derive(Debug)]
pub(super) struct Relay {
    client: Leg,
    server: Leg,
    up: Direction,
    down: Direction,
}

/// What is held for one stream, and how far the other has come.
#[derive(Debug, Default)]
struct Direction {
    held: Held,
    /// Bytes handed on, until somebody asks: no more than a poll can move.
    passed: u32,
    /// What large reads have brought, one after the other, in units of [`LARGE`].
    streak: u8,
    stage: Stage,
}

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nothing,
    Bytes(Box<Rest>),
    Pipe(Box<Pipe>),
}

/// What the other side has not taken yet.
#[derive(Debug)]
struct Rest {
    bytes: Box<[u8]>,
    /// So many have gone.
    gone: usize,
}

impl Held {
    fn rest(bytes: &[u8]) -> Self {
        Self::Bytes(Box::new(Rest { bytes: bytes.into(), gone: 0 }))
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Open,
    /// The source has ended; what is held must still go.
    Ending,
    Ended,
}

impl Relay {
    /// Between two streams; `first` are bytes of the client that were read already.
    pub(super) fn new(client: Leg, server: Leg, first: Vec<u8>) -> Self {
        let held = if first.is_empty() { Held::Nothing } else { Held::rest(&first) };
        let up = Direction { held, ..Direction::default() };
        Self { client, server, up, down: Direction::default() }
    }

    /// Bytes handed to the server and to the client since this was last asked, which is to be after
    /// each poll.
    pub(super) fn take_passed(&mut self) -> [u64; 2] {
        [&mut self.up, &mut self.down].map(|way| u64::from(std::mem::take(&mut way.passed)))
    }

    /// The client again, for another server, unless something is on its way or has ended. It is for
    /// the caller to know that nothing has passed.
    pub(super) fn into_client(self) -> Option<Leg> {
        let untouched = !self.is_half_closed() && self.up.is_waiting() && self.down.is_waiting();
        untouched.then_some(self.client)
    }

    /// Has either side ended?
    pub(super) fn is_half_closed(&self) -> bool {
        self.up.stage != Stage::Open || self.down.stage != Stage::Open
    }

    /// Has the server said all, and the client got it?
    pub(super) fn has_server_ended(&self) -> bool {
        self.down.stage == Stage::Ended
    }

    /// Goes as far as it can; `Ready` when both sides have ended or one broke.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broke>> {
        let broke = |side| move |error| Broke { side, error };
        let (client, server) = ((Side::Client, &*self.client), (Side::Server, &*self.server));
        let up = self.up.poll(cx, client, server, self.down.stage == Stage::Ended)?;
        let down = self.down.poll(cx, server, client, self.up.stage == Stage::Ended)?;
        match (up.is_ready(), down.is_ready()) {
            (true, true) => {
                self.client.in_order = true;
                self.server.in_order = true;
                Poll::Ready(Ok(()))
            }
            // Nobody reads from whoever has ended, or whose bytes are not taken; it may still reset.
            (up, down) => {
                if (up || !self.up.is_waiting())
                    && let Poll::Ready(error) = self.client.poll_reset(cx)
                {
                    return Poll::Ready(Err(broke(Side::Client)(error)));
                }
                if (down || !self.down.is_waiting())
                    && let Poll::Ready(error) = self.server.poll_reset(cx)
                {
                    return Poll::Ready(Err(broke(Side::Server)(error)));
                }
                Poll::Pending
            }
        }
    }
}

impl Direction {
    /// Goes as far as it can. The last direction to end does not say so: the close will.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from_side, from): (Side, &Stream),
        (to_side, to): (Side, &Stream),
        is_last: bool,
    ) -> Poll<Result<(), Broke>> {
        let source = |error| Broke { side: from_side, error };
        let sink = |error| Broke { side: to_side, error };
        for _ in 0..ROUNDS {
            ready!(self.poll_deliver(cx, to)).map_err(sink)?;
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    if !is_last {
                        to.end_writing().map_err(sink)?;
                    }
                    self.stage = Stage::Ended;
                    return Poll::Ready(Ok(()));
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
            let moved = match self.pipe() {
                Some(pipe) => match from.poll_fill(cx, pipe).map_err(source)? {
                    Poll::Ready(Some(moved)) => Poll::Ready(moved),
                    Poll::Ready(None) => {
                        // By reads again, until they have shown anew that it is bulk.
                        self.streak = 0;
                        continue;
                    }
                    Poll::Pending => Poll::Pending,
                },
                None => {
                    let copied =
                        BUFFER.with_borrow_mut(|buffer| self.poll_copy(cx, from, to, buffer));
                    copied.map_err(|(of_source, error)| match of_source {
                        true => source(error),
                        false => sink(error),
                    })?
                }
            };
            let Poll::Ready(moved) = moved else {
                self.release();
                return Poll::Pending;
            };
            self.judge(moved);
        }
        // There is more; others first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Nothing to deliver, and the source silent.
    fn is_waiting(&self) -> bool {
        matches!(self.held, Held::Nothing)
    }

    /// Hands on what is held.
    fn poll_deliver(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<()>> {
        loop {
            let sent = match &mut self.held {
                Held::Bytes(rest) => {
                    let sent = ready!(to.poll_send(cx, &rest.bytes[rest.gone..]))?;
                    rest.gone += sent;
                    if rest.gone == rest.bytes.len() {
                        self.held = Held::Nothing;
                    }
                    sent
                }
                Held::Pipe(pipe) if !pipe.is_empty() => ready!(to.poll_empty(cx, pipe))?,
                Held::Pipe(_) | Held::Nothing => return Poll::Ready(Ok(())),
            };
            self.passed = self.passed.saturating_add(sent as u32);
        }
    }

    /// Reads once and hands on what the other side takes at once; says how much was read. Errors come
    /// with `true` if they are the source's.
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &Stream,
        to: &Stream,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, (bool, io::Error)>> {
        let read = ready!(from.poll_recv(cx, buffer)).map_err(|error| (true, error))?;
        let bytes = &buffer[..read];
        if !bytes.is_empty() {
            let sent = match to.poll_send(cx, bytes) {
                Poll::Ready(sent) => sent.map_err(|error| (false, error))?,
                Poll::Pending => 0,
            };
            self.passed = self.passed.saturating_add(sent as u32);
            if sent < read {
                self.held = Held::rest(&bytes[sent..]);
            }
        }
        Poll::Ready(Ok(read))
    }

    /// The pipe to splice through, if the direction is bulk and there is one.
    fn pipe(&mut self) -> Option<&mut Pipe> {
        if self.streak < BULK {
            self.release();
            return None;
        }
        if matches!(self.held, Held::Nothing) {
            match Pipe::take() {
                Some(pipe) => self.held = Held::Pipe(pipe),
                // Not asked for again with every read.
                None => self.streak = 0,
            }
        }
        match &mut self.held {
            Held::Pipe(pipe) => Some(pipe),
            _ => None,
        }
    }

    /// Gives an empty pipe to whoever needs one.
    fn release(&mut self) {
        if matches!(&self.held, Held::Pipe(pipe) if pipe.is_empty())
            && let Held::Pipe(pipe) = std::mem::take(&mut self.held)
        {
            pipe.give_back();
        }
    }

    /// Learns from the size of a read.
    fn judge(&mut self, moved: usize) {
        let spliced = matches!(self.held, Held::Pipe(_));
        if moved == 0 {
            self.release();
            self.stage = Stage::Ending;
        } else if moved < if spliced { SMALL } else { LARGE } {
            self.streak = 0;
        } else {
            let units = u8::try_from(moved / LARGE).unwrap_or(u8::MAX);
            self.streak = self.streak.saturating_add(units);
        }
    }
}
