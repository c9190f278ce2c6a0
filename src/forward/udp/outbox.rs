//! Coalesces datagrams into as few messages as possible and sends them in batches.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use crate::forward::errno::is_segmentation_error;
use crate::sys::mmsg::{
    DatagramBatch, DatagramSender, DatagramSlice, MAX_SEGMENTED_BYTES, MAX_SEGMENTS,
    OutgoingMessage, ReceivedDatagram,
};

/// Messages to send through one socket, composed of the datagrams of a received batch.
///
/// Consecutive datagrams of one size and one route become one message that the kernel segments
/// again (`UDP_SEGMENT`): the network stack processes them once.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    messages: Vec<OutgoingMessage>,
    metas: Vec<MessageMeta>,
    pieces: Vec<DatagramSlice>,
    sender: DatagramSender,
    last: LastMessage,
    /// Buffers for messages that the kernel cannot segment.
    unsegmented: Vec<OutgoingMessage>,
    unsegmented_pieces: Vec<DatagramSlice>,
}

/// The route of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageRoute {
    /// A number chosen by the caller, which identifies the route.
    pub(super) tag: u64,
    /// The destination; `None` on a connected socket.
    pub(super) to: Option<SocketAddr>,
    /// The source address; `None` for the socket's own.
    pub(super) from: Option<IpAddr>,
}

/// The counters of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageMeta {
    /// The tag of the route.
    pub(super) tag: u64,
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// The kernel could not segment the message; its datagrams were sent separately.
    pub(super) segmentation_failed: bool,
}

/// Whether and how the last message can be extended by a datagram.
#[derive(Debug, Default)]
struct LastMessage {
    segment_size: usize,
    extendable: bool,
}

/// The result of sending a message.
#[derive(Debug)]
pub(super) enum MessageResult {
    Sent,
    Failed(io::Error),
}

/// How to continue after a failed message.
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

    /// Returns the only message if it is a single datagram.
    pub(super) fn single_datagram(&self) -> Option<(DatagramSlice, MessageMeta)> {
        match (&*self.messages, &*self.pieces) {
            ([message], [piece]) if message.segment_size == 0 => Some((*piece, self.metas[0])),
            _ => None,
        }
    }

    /// Adds the (possibly coalesced) datagram at `index` of the batch.
    ///
    /// Routes with the same tag must be equal. With `may_coalesce`, datagrams of one route can
    /// become one message.
    pub(super) fn push(
        &mut self,
        route: MessageRoute,
        index: usize,
        received: &ReceivedDatagram,
        may_coalesce: bool,
    ) {
        let (len, segment) = (received.len, received.segment_size);
        let index = index as u32;
        if segment != 0 && !may_coalesce {
            let mut offset = 0;
            while offset < len {
                let part = segment.min(len - offset);
                let piece =
                    DatagramSlice { datagram: index, offset: offset as u32, len: part as u32 };
                self.push_message(route, piece, 1, 0);
                offset += part;
            }
            self.last.extendable = false;
            return;
        }
        let datagrams = if segment == 0 { 1 } else { len.div_ceil(segment) };
        let size = if segment == 0 { len } else { segment };
        let piece = DatagramSlice { datagram: index, offset: 0, len: len as u32 };
        if may_coalesce
            && self.last.extendable
            && self.try_extend_last(route.tag, piece, size, datagrams as u64)
        {
            return;
        }
        self.push_message(route, piece, datagrams as u64, segment);
        // Only the last segment of a message may be shorter.
        self.last =
            LastMessage { segment_size: size, extendable: len != 0 && len.is_multiple_of(size) };
    }

    fn push_message(
        &mut self,
        MessageRoute { tag, to, from }: MessageRoute,
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

    /// Appends a datagram to the last message if the kernel can segment the result; `false` if not.
    fn try_extend_last(
        &mut self,
        tag: u64,
        piece: DatagramSlice,
        size: usize,
        datagrams: u64,
    ) -> bool {
        let (Some(message), Some(meta)) = (self.messages.last_mut(), self.metas.last_mut()) else {
            return false;
        };
        let fits = meta.tag == tag
            && piece.len != 0
            && (size == self.last.segment_size
                || (size < self.last.segment_size && datagrams == 1))
            && meta.datagrams + datagrams <= MAX_SEGMENTS as u64
            && meta.bytes + u64::from(piece.len) <= MAX_SEGMENTED_BYTES as u64;
        if fits {
            message.segment_size = self.last.segment_size;
            message.slice_count += 1;
            meta.datagrams += datagrams;
            meta.bytes += u64::from(piece.len);
            self.last.extendable = (piece.len as usize).is_multiple_of(self.last.segment_size);
            self.pieces.push(piece);
        }
        fits
    }

    /// Sends all messages in order and calls `on_result` with the result of each. After a failure
    /// the returned value decides how to continue.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        batch: &DatagramBatch,
        mut on_result: impl FnMut(&MessageMeta, MessageResult) -> SendControl,
    ) {
        let mut at = 0;
        while at < self.messages.len() {
            match self.sender.send(socket, &self.messages[at..], &self.pieces, batch) {
                // Not expected: the kernel sends at least one message or returns an error.
                Ok(0) => return,
                Ok(sent) => {
                    for meta in &self.metas[at..at + sent] {
                        on_result(meta, MessageResult::Sent);
                    }
                    at += sent;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let segmentation_failed =
                        self.messages[at].segment_size != 0 && is_segmentation_error(&error);
                    let result = if segmentation_failed {
                        self.send_unsegmented(socket, at, batch)
                    } else {
                        MessageResult::Failed(error)
                    };
                    let is_sent = matches!(result, MessageResult::Sent);
                    let meta = MessageMeta { segmentation_failed, ..self.metas[at] };
                    match on_result(&meta, result) {
                        _ if is_sent => at += 1,
                        SendControl::Retry => {}
                        SendControl::Continue => at += 1,
                        SendControl::Stop => return,
                    }
                }
            }
        }
    }

    /// Sends the datagrams of one message separately.
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

    fn messages_of(
        datagrams: &[(u64, usize, usize)],
        may_coalesce: bool,
    ) -> Vec<(u64, usize, u64, u64)> {
        let mut outbox = Outbox::default();
        for (index, &(tag, len, segment)) in datagrams.iter().enumerate() {
            let received = ReceivedDatagram {
                peer: None,
                local: None,
                len,
                segment_size: segment,
                truncated: false,
            };
            let route = MessageRoute { tag, to: None, from: None };
            outbox.push(route, index, &received, may_coalesce);
        }
        let messages = outbox.messages.iter().zip(&outbox.metas);
        messages
            .map(|(message, meta)| (meta.tag, message.segment_size, meta.datagrams, meta.bytes))
            .collect()
    }

    #[test]
    fn consecutive_datagrams_of_one_size_and_route_become_one_message() {
        let run = [(1, 100, 0), (1, 100, 0), (1, 40, 0)];
        assert_eq!(messages_of(&run, true), [(1, 100, 3, 240)]);
        assert_eq!(messages_of(&run, false).len(), 3);
        // A shorter datagram ends a message; another route, a longer and an empty datagram begin a
        // new message.
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
        assert_eq!(messages_of(&breaks, true), expected);
    }

    #[test]
    fn coalesced_datagrams_stay_coalesced_or_are_split() {
        let runs = [(1, 1000, 500), (1, 1200, 500), (1, 500, 0)];
        assert_eq!(messages_of(&runs, true), [(1, 500, 5, 2200), (1, 0, 1, 500)]);
        let sizes: Vec<u64> = messages_of(&runs, false).iter().map(|message| message.3).collect();
        assert_eq!(sizes, [500, 500, 500, 500, 200, 500]);
    }

    #[test]
    fn message_stays_within_the_limits_of_the_kernel() {
        let many = vec![(1, 10, 0); 100];
        assert_eq!(messages_of(&many, true), [(1, 10, 64, 640), (1, 10, 36, 360)]);
        let large = vec![(1, 30_000, 0); 3];
        assert_eq!(messages_of(&large, true), [(1, 30_000, 2, 60_000), (1, 0, 1, 30_000)]);
    }
}
