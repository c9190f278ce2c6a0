//! A socket of generic netlink: one request, and all messages of its answer.

use std::io;

use netlink_packet_core::{NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use super::attribute::IpvsDecodeError;
use super::message::GenericMessage;

/// The longest datagram of an answer: kernels fill up to 32 KiB.
const MAX_DATAGRAM_LEN: usize = 32 * 1024;

/// A netlink socket for requests.
pub(super) struct GenericNetlinkSocket {
    socket: Socket,
    sequence_number: u32,
}

impl GenericNetlinkSocket {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The answer is there when the request has been sent; if it is not, the call fails.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, sequence_number: 0 })
    }

    /// Sends a request, and receives its answers until the acknowledgement.
    pub(super) fn exchange(
        &mut self,
        request: GenericMessage,
        is_dump: bool,
    ) -> Result<Vec<GenericMessage>, ExchangeError> {
        self.sequence_number = self.sequence_number.wrapping_add(1);
        let bytes = request.encode(self.sequence_number, is_dump);
        self.socket.send(&bytes, 0).map_err(ExchangeError::Socket)?;
        let mut answers = AnswerCollector::new(self.sequence_number);
        let mut buffer = Vec::with_capacity(MAX_DATAGRAM_LEN);
        loop {
            buffer.clear();
            // With this flag the length is that of the datagram, even if less was received.
            let len = match self.socket.recv(&mut buffer, libc::MSG_TRUNC) {
                // The kernel acknowledges no command that fails with this error.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(ExchangeError::Kernel(io::Error::from_raw_os_error(libc::EINTR)));
                }
                len => len.map_err(ExchangeError::Socket)?,
            };
            if len > buffer.len() {
                return Err(ExchangeError::Decode(IpvsDecodeError::Truncated));
            }
            if answers.add_datagram(&buffer)? {
                return answers.finish();
            }
        }
    }
}

/// The parts of an answer.
struct AnswerCollector {
    sequence_number: u32,
    messages: Vec<GenericMessage>,
    is_interrupted: bool,
}

impl AnswerCollector {
    const fn new(sequence_number: u32) -> Self {
        Self { sequence_number, messages: Vec::new(), is_interrupted: false }
    }

    /// Adds the messages of a datagram; true after the last one of the answer.
    fn add_datagram(&mut self, datagram: &[u8]) -> Result<bool, ExchangeError> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkMessage::<GenericMessage>::deserialize(rest)
                .map_err(|_| ExchangeError::Decode(IpvsDecodeError::Truncated))?;
            // Messages are aligned to four octets.
            let length = (message.header.length as usize).max(16).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != self.sequence_number {
                // Of a request that failed before its answer was read.
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                NetlinkPayload::Done(done) if done.code == 0 => return Ok(true),
                NetlinkPayload::Done(done) => {
                    let error = io::Error::from_raw_os_error(done.code.saturating_neg());
                    return Err(ExchangeError::Kernel(error));
                }
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(ExchangeError::Kernel(error.to_io())),
                _ => {}
            }
        }
        Ok(false)
    }

    fn finish(self) -> Result<Vec<GenericMessage>, ExchangeError> {
        if self.is_interrupted { Err(ExchangeError::Interrupted) } else { Ok(self.messages) }
    }
}

/// The reason why an exchange of messages failed.
#[derive(Debug)]
pub(super) enum ExchangeError {
    Socket(io::Error),
    Kernel(io::Error),
    Decode(IpvsDecodeError),
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence_number: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[0] = 16 + payload.len() as u8;
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8] = sequence_number;
        bytes.extend(payload);
        bytes
    }

    fn collect(datagrams: &[Vec<u8>]) -> Result<usize, ExchangeError> {
        let mut answers = AnswerCollector::new(5);
        for (i, datagram) in datagrams.iter().enumerate() {
            let is_last = answers.add_datagram(datagram)?;
            assert_eq!(is_last, i + 1 == datagrams.len());
        }
        answers.finish().map(|messages| messages.len())
    }

    #[test]
    fn the_parts_of_a_list_are_collected_up_to_its_end() {
        let part = message(34, 2, 5, &[1, 1, 0, 0]);
        let foreign = message(34, 2, 4, &[1, 1, 0, 0]);
        let done = message(3, 2, 5, &[0; 4]);
        let first = [&part[..], &part[..], &foreign[..]].concat();
        assert_eq!(collect(&[first, part, done]).unwrap(), 3);
    }

    #[test]
    fn a_list_that_changed_meanwhile_is_not_used() {
        let part = message(34, 2 | NLM_F_DUMP_INTR, 5, &[1, 1, 0, 0]);
        let done = message(3, 2, 5, &[0; 4]);
        assert!(matches!(collect(&[part, done]), Err(ExchangeError::Interrupted)));
    }

    #[test]
    fn errors_are_those_of_the_kernel() {
        let failed = |code: i32| message(2, 0, 5, &[&code.to_ne_bytes()[..], &[0; 16]].concat());
        assert_eq!(collect(&[failed(0)]).unwrap(), 0);
        let Err(ExchangeError::Kernel(error)) = collect(&[failed(-libc::EEXIST)]) else { panic!() };
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        let done = message(3, 2, 5, &(-libc::ENOMEM).to_ne_bytes());
        let Err(ExchangeError::Kernel(error)) = collect(&[done]) else { panic!() };
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert!(matches!(collect(&[vec![1; 7]]), Err(ExchangeError::Decode(_))));
    }
}
