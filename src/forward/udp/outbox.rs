//! Puts datagrams into as few messages as the kernel takes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::socket::is_uncut;
use crate::sys::mmsg::{Batch, Message, Piece, Received, SEGMENTED_MAX, SEGMENTS_MAX, Sender};

/// Messages to be sent through one socket, made of what a batch holds.
///
/// Datagrams of one size that go the same way, one behind the other, become one message that the
/// kernel cuts again (`UDP_SEGMENT`): the way through its layers is gone once for all of them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: Vec<Message>,
    notes: Vec<Note>,
    pieces: Vec<Piece>,
    sender: Sender,
    tail: Tail,
    /// For what has to be sent in single datagrams after all.
    single: Vec<Message>,
    single_pieces: Vec<Piece>,
}

/// What belongs to a message beside what the kernel needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    /// The caller's mark; see [`Outbox::push`].
    pub(super) tag: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// The kernel would not cut it, and it was sent in single datagrams.
    pub(super) uncut: bool,
}

/// The last message: what it takes for one more datagram to become a part of it.
#[derive(Debug, Default)]
struct Tail {
    size: usize,
    open: bool,
}

/// How a message fared.
#[derive(Debug)]
pub(super) enum Fate {
    Sent,
    Failed(io::Error),
}

/// Whether to go on with the messages behind one that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Then {
    Again,
    Next,
    Stop,
}

impl Outbox {
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.notes.clear();
        self.pieces.clear();
        self.tail.open = false;
    }

    /// The one plain datagram that the outbox holds, if it holds no more.
    pub(super) fn only(&self) -> Option<(Piece, Note)> {
        match (&*self.messages, &*self.pieces) {
            ([message], [piece]) if message.segment == 0 => Some((*piece, self.notes[0])),
            _ => None,
        }
    }

    /// Adds the datagram (or coalesced run) at `index` of the batch.
    ///
    /// Datagrams with the same `tag` must go the same way; `join` lets them become one message.
    pub(super) fn push(
        &mut self,
        tag: u64,
        (to, from): (Option<SocketAddr>, Option<IpAddr>),
        (index, received): (usize, &Received),
        join: bool,
    ) {
        let (len, segment) = (received.len, received.segment);
        let index = index as u32;
        if segment != 0 && !join {
            let mut offset = 0;
            while offset < len {
                let part = segment.min(len - offset);
                let piece = Piece { index, offset: offset as u32, len: part as u32 };
                self.append(tag, to, from, piece, 1, 0);
                offset += part;
            }
            self.tail.open = false;
            return;
        }
        let datagrams = if segment == 0 { 1 } else { len.div_ceil(segment) };
        let size = if segment == 0 { len } else { segment };
        let piece = Piece { index, offset: 0, len: len as u32 };
        if join && self.tail.open && self.extend(tag, piece, size, datagrams as u64) {
            return;
        }
        self.append(tag, to, from, piece, datagrams as u64, segment);
        // What ends in a shorter datagram cannot go on.
        self.tail = Tail { size, open: len != 0 && len.is_multiple_of(size) };
    }

    fn append(
        &mut self,
        tag: u64,
        to: Option<SocketAddr>,
        from: Option<IpAddr>,
        piece: Piece,
        datagrams: u64,
        segment: usize,
    ) {
        self.messages.push(Message { to, from, segment, first: self.pieces.len(), count: 1 });
        self.notes.push(Note { tag, datagrams, bytes: u64::from(piece.len), uncut: false });
        self.pieces.push(piece);
    }

    fn extend(&mut self, tag: u64, piece: Piece, size: usize, datagrams: u64) -> bool {
        let (Some(message), Some(note)) = (self.messages.last_mut(), self.notes.last_mut()) else {
            return false;
        };
        let fits = note.tag == tag
            && piece.len != 0
            && (size == self.tail.size || (size < self.tail.size && datagrams == 1))
            && note.datagrams + datagrams <= SEGMENTS_MAX as u64
            && note.bytes + u64::from(piece.len) <= SEGMENTED_MAX as u64;
        if fits {
            message.segment = self.tail.size;
            message.count += 1;
            note.datagrams += datagrams;
            note.bytes += u64::from(piece.len);
            self.tail.open = (piece.len as usize).is_multiple_of(self.tail.size);
            self.pieces.push(piece);
        }
        fits
    }

    /// Sends everything in order and tells what became of each message. After a failure the answer
    /// says how to go on.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        batch: &Batch,
        mut told: impl FnMut(&Note, Fate) -> Then,
    ) {
        let mut at = 0;
        while at < self.messages.len() {
            match self.sender.send(socket, &self.messages[at..], &self.pieces, batch) {
                // The kernel sends one at least, or says why not.
                Ok(0) => return,
                Ok(sent) => {
                    for note in &self.notes[at..at + sent] {
                        told(note, Fate::Sent);
                    }
                    at += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let cut = self.messages[at].segment != 0 && is_uncut(&error);
                    let fate =
                        if cut { self.send_single(socket, at, batch) } else { Fate::Failed(error) };
                    let sent = matches!(fate, Fate::Sent);
                    let note = Note { uncut: cut, ..self.notes[at] };
                    match told(&note, fate) {
                        _ if sent => at += 1,
                        Then::Again => {}
                        Then::Next => at += 1,
                        Then::Stop => return,
                    }
                }
            }
        }
    }

    /// Sends the datagrams of one message each by itself.
    fn send_single(&mut self, socket: BorrowedFd<'_>, at: usize, batch: &Batch) -> Fate {
        let message = self.messages[at];
        self.single.clear();
        self.single_pieces.clear();
        for piece in &self.pieces[message.first..message.first + message.count] {
            let mut offset = 0;
            while offset < piece.len {
                let len = (message.segment as u32).min(piece.len - offset);
                let first = self.single_pieces.len();
                self.single.push(Message { segment: 0, first, count: 1, ..message });
                self.single_pieces.push(Piece { offset: piece.offset + offset, len, ..*piece });
                offset += len;
            }
        }
        let mut sent = 0;
        while sent < self.single.len() {
            match self.sender.send(socket, &self.single[sent..], &self.single_pieces, batch) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Fate::Failed(error),
            }
        }
        Fate::Sent
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn outbox(datagrams: &[(u64, usize, usize)], join: bool) -> Vec<(u64, usize, u64, u64)> {
        let mut outbox = Outbox::default();
        for (index, &(tag, len, segment)) in datagrams.iter().enumerate() {
            let received = Received { peer: None, local: None, len, segment, truncated: false };
            outbox.push(tag, (None, None), (index, &received), join);
        }
        let both = outbox.messages.iter().zip(&outbox.notes);
        both.map(|(m, note)| (note.tag, m.segment, note.datagrams, note.bytes)).collect()
    }

    #[test]
    fn runs_of_one_size_and_way_become_one_message() {
        let one_run = [(1, 100, 0), (1, 100, 0), (1, 40, 0)];
        assert_eq!(outbox(&one_run, true), [(1, 100, 3, 240)]);
        assert_eq!(outbox(&one_run, false).len(), 3);
        // The short one ended the run; another way, a longer and an empty one begin their own.
        let breaks =
            [(1, 100, 0), (1, 40, 0), (1, 40, 0), (2, 40, 0), (2, 50, 0), (2, 0, 0), (2, 9, 0)];
        let expected = [
            (1, 100, 2, 140),
            (1, 0, 1, 40),
            (2, 0, 1, 40),
            (2, 0, 1, 50),
            (2, 0, 1, 0),
            (2, 0, 1, 9),
        ];
        assert_eq!(outbox(&breaks, true), expected);
    }

    #[test]
    fn coalesced_runs_stay_together_or_are_taken_apart() {
        let runs = [(1, 1000, 500), (1, 1200, 500), (1, 500, 0)];
        assert_eq!(outbox(&runs, true), [(1, 500, 5, 2200), (1, 0, 1, 500)]);
        let sizes: Vec<u64> = outbox(&runs, false).iter().map(|m| m.3).collect();
        assert_eq!(sizes, [500, 500, 500, 500, 200, 500]);
    }

    #[test]
    fn a_message_stays_within_what_the_kernel_takes() {
        let many = vec![(1, 10, 0); 100];
        assert_eq!(outbox(&many, true), [(1, 10, 64, 640), (1, 10, 36, 360)]);
        let large = vec![(1, 30_000, 0); 3];
        assert_eq!(outbox(&large, true), [(1, 30_000, 2, 60_000), (1, 0, 1, 30_000)]);
    }
}
