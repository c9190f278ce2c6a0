//! Puts datagrams into as few messages as the kernel takes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::socket::is_segmentation_error;
use crate::sys::mmsg::{
    DatagramBatch, DatagramSender, DatagramSlice, MAX_SEGMENTED_BYTES, MAX_SEGMENTS,
    OutgoingMessage, ReceivedDatagram,
};

/// Messages to be sent through one socket, made of what a batch holds.
///
/// Datagrams of one size that go the same way, one behind the other, become one message that the
/// kernel cuts again (`UDP_SEGMENT`): the way through its layers is gone once for all of them.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: Vec<OutgoingMessage>,
    metas: Vec<MessageMeta>,
    pieces: Vec<DatagramSlice>,
    sender: DatagramSender,
    last: LastMessage,
    /// For what has to be sent in single datagrams after all.
    unsegmented: Vec<OutgoingMessage>,
    unsegmented_pieces: Vec<DatagramSlice>,
}

/// What belongs to a message beside what the kernel needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageMeta {
    /// The caller's mark; see [`Outbox::push`].
    pub(super) tag: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// The kernel would not cut it, and it was sent in single datagrams.
    pub(super) segmentation_failed: bool,
}

/// The last message: what it takes for one more datagram to become a part of it.
#[derive(Debug, Default)]
struct LastMessage {
    segment_size: usize,
    extendable: bool,
}

/// How a message fared.
#[derive(Debug)]
pub(super) enum MessageResult {
    Sent,
    Failed(io::Error),
}

/// Whether to go on with the messages behind one that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SendControl {
    Retry,
    Continue,
    Stop,
}

impl Outbox {
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.metas.clear();
        self.pieces.clear();
        self.last.extendable = false;
    }

    /// The one plain datagram that the outbox holds, if it holds no more.
    pub(super) fn single_datagram(&self) -> Option<(DatagramSlice, MessageMeta)> {
        match (&*self.messages, &*self.pieces) {
            ([message], [piece]) if message.segment_size == 0 => Some((*piece, self.metas[0])),
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
        (index, received): (usize, &ReceivedDatagram),
        join: bool,
    ) {
        let (len, segment) = (received.len, received.segment_size);
        let index = index as u32;
        if segment != 0 && !join {
            let mut offset = 0;
            while offset < len {
                let part = segment.min(len - offset);
                let piece =
                    DatagramSlice { datagram: index, offset: offset as u32, len: part as u32 };
                self.push_message(tag, to, from, piece, 1, 0);
                offset += part;
            }
            self.last.extendable = false;
            return;
        }
        let datagrams = if segment == 0 { 1 } else { len.div_ceil(segment) };
        let size = if segment == 0 { len } else { segment };
        let piece = DatagramSlice { datagram: index, offset: 0, len: len as u32 };
        if join && self.last.extendable && self.try_extend_last(tag, piece, size, datagrams as u64)
        {
            return;
        }
        self.push_message(tag, to, from, piece, datagrams as u64, segment);
        // What ends in a shorter datagram cannot go on.
        self.last =
            LastMessage { segment_size: size, extendable: len != 0 && len.is_multiple_of(size) };
    }

    fn push_message(
        &mut self,
        tag: u64,
        to: Option<SocketAddr>,
        from: Option<IpAddr>,
        piece: DatagramSlice,
        datagrams: u64,
        segment: usize,
    ) {
        self.messages.push(OutgoingMessage {
            to,
            from,
            segment_size: segment,
            first_slice: self.pieces.len(),
            slice_count: 1,
        });
        self.metas.push(MessageMeta {
            tag,
            datagrams,
            bytes: u64::from(piece.len),
            segmentation_failed: false,
        });
        self.pieces.push(piece);
    }

    fn try_extend_last(
        &mut self,
        tag: u64,
        piece: DatagramSlice,
        size: usize,
        datagrams: u64,
    ) -> bool {
        let (Some(message), Some(note)) = (self.messages.last_mut(), self.metas.last_mut()) else {
            return false;
        };
        let fits = note.tag == tag
            && piece.len != 0
            && (size == self.last.segment_size
                || (size < self.last.segment_size && datagrams == 1))
            && note.datagrams + datagrams <= MAX_SEGMENTS as u64
            && note.bytes + u64::from(piece.len) <= MAX_SEGMENTED_BYTES as u64;
        if fits {
            message.segment_size = self.last.segment_size;
            message.slice_count += 1;
            note.datagrams += datagrams;
            note.bytes += u64::from(piece.len);
            self.last.extendable = (piece.len as usize).is_multiple_of(self.last.segment_size);
            self.pieces.push(piece);
        }
        fits
    }

    /// Sends everything in order and tells what became of each message. After a failure the answer
    /// says how to go on.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        batch: &DatagramBatch,
        mut told: impl FnMut(&MessageMeta, MessageResult) -> SendControl,
    ) {
        let mut at = 0;
        while at < self.messages.len() {
            match self.sender.send(socket, &self.messages[at..], &self.pieces, batch) {
                // The kernel sends one at least, or says why not.
                Ok(0) => return,
                Ok(sent) => {
                    for note in &self.metas[at..at + sent] {
                        told(note, MessageResult::Sent);
                    }
                    at += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let cut = self.messages[at].segment_size != 0 && is_segmentation_error(&error);
                    let fate = if cut {
                        self.send_unsegmented(socket, at, batch)
                    } else {
                        MessageResult::Failed(error)
                    };
                    let sent = matches!(fate, MessageResult::Sent);
                    let note = MessageMeta { segmentation_failed: cut, ..self.metas[at] };
                    match told(&note, fate) {
                        _ if sent => at += 1,
                        SendControl::Retry => {}
                        SendControl::Continue => at += 1,
                        SendControl::Stop => return,
                    }
                }
            }
        }
    }

    /// Sends the datagrams of one message each by itself.
    fn send_unsegmented(
        &mut self,
        socket: BorrowedFd<'_>,
        at: usize,
        batch: &DatagramBatch,
    ) -> MessageResult {
        let message = self.messages[at];
        self.unsegmented.clear();
        self.unsegmented_pieces.clear();
        for piece in &self.pieces[message.first_slice..message.first_slice + message.slice_count] {
            let mut offset = 0;
            while offset < piece.len {
                let len = (message.segment_size as u32).min(piece.len - offset);
                let first = self.unsegmented_pieces.len();
                self.unsegmented.push(OutgoingMessage {
                    segment_size: 0,
                    first_slice: first,
                    slice_count: 1,
                    ..message
                });
                self.unsegmented_pieces.push(DatagramSlice {
                    offset: piece.offset + offset,
                    len,
                    ..*piece
                });
                offset += len;
            }
        }
        let mut sent = 0;
        while sent < self.unsegmented.len() {
            match self.sender.send(
                socket,
                &self.unsegmented[sent..],
                &self.unsegmented_pieces,
                batch,
            ) {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return MessageResult::Failed(error),
            }
        }
        MessageResult::Sent
    }
}

#[cfg(all(test, not(lvs_loom)))]
mod tests {
    use super::*;

    fn outbox(datagrams: &[(u64, usize, usize)], join: bool) -> Vec<(u64, usize, u64, u64)> {
        let mut outbox = Outbox::default();
        for (index, &(tag, len, segment)) in datagrams.iter().enumerate() {
            let received = ReceivedDatagram {
                peer: None,
                local: None,
                len,
                segment_size: segment,
                truncated: false,
            };
            outbox.push(tag, (None, None), (index, &received), join);
        }
        let both = outbox.messages.iter().zip(&outbox.metas);
        both.map(|(m, note)| (note.tag, m.segment_size, note.datagrams, note.bytes)).collect()
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
