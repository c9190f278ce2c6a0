//! The transfer of listening sockets to a successor process, so that a restart refuses no connection.
//!
//! The kernel keeps connections that are not accepted yet in the queue of the listening socket. They
//! are lost if a process closes its listener and its successor binds the address anew. A successor
//! that receives the same socket accepts them.
//!
//! - [`send`] and [`receive`] transfer sockets between running processes over a Unix socket.
//! - [`from_environment`] takes the sockets that a service manager opened before the start, as
//!   systemd's socket units do.
//!
//! Each socket has a name that tells the successor its purpose. Several sockets may have the same
//! name, such as the listeners of the worker threads of a service.
//!
//! # A restart
//! 1. The successor starts, connects to the predecessor's Unix socket, and calls [`receive`].
//! 2. The predecessor calls [`send`]. From here on both own the sockets, and either may accept.
//! 3. The successor begins to accept, and reports it, for example by a byte on the same stream.
//! 4. The predecessor then [shuts down](super::TcpHandle::shutdown) with time to drain. If the
//!    successor dies before, the stream ends instead, and the predecessor continues to serve.
//!
//! # Examples
//! ```
//! use std::net::TcpListener;
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//! use lvs::forward::handover;
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let (predecessor, successor) = UnixStream::pair()?;
//!
//! handover::send(&predecessor, &[("web", listener.as_fd())])?;
//! for (name, descriptor) in handover::receive(&successor)? {
//!     let received = TcpListener::from(descriptor);
//!     assert_eq!((&*name, received.local_addr()?), ("web", listener.local_addr()?));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Trust
//! A process that may connect to the Unix socket may take the listeners: keep the socket in a directory
//! that only the service can access. [`receive`] does not trust its peer: all lengths are bounded, and
//! descriptors that were not announced are closed.
//!
//! # Wire format
//! A line, `lvs-handover 1 2 8`: the version, the number of sockets, the number of bytes of names.
//! Then the names, each followed by a line feed. Then one byte, `+`, for each message with up to 253
//! descriptors (`SCM_RIGHTS`, `unix(7)`), in the order of the names.

mod environment;

#[cfg(all(test, not(lvs_loom)))]
mod tests;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;

pub use self::environment::from_environment;

/// The most sockets in one handover.
pub const MAX_SOCKETS: usize = 1024;

/// The most bytes in the name of a socket, as in systemd.
pub const MAX_NAME_LEN: usize = 255;

/// The most descriptors in one message (`SCM_MAX_FD` of the kernel).
const MAX_FDS_PER_MESSAGE: usize = 253;

const MAGIC: &str = "lvs-handover";
const PROTOCOL_VERSION: u32 = 1;

/// Longer than any valid header line.
const MAX_HEADER_LEN: usize = 64;

/// The byte of a message with descriptors: the kernel requires at least one byte.
const MESSAGE_MARKER: u8 = b'+';

/// The error of a handover.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The stream to the peer cannot be written or read; `WouldBlock` if the timeout of the stream
    /// expired.
    #[error("cannot communicate with the other process: {0}")]
    Io(#[from] io::Error),
    /// A name is empty, longer than [`MAX_NAME_LEN`], or has a byte that is not printable ASCII, or a
    /// colon, which separates names in [`from_environment`].
    #[error(
        "invalid socket name {name:?}: must be 1 to {MAX_NAME_LEN} printable ASCII characters \
         without a colon"
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// There are more sockets than [`MAX_SOCKETS`].
    #[error("cannot hand over {count} sockets: the limit is {MAX_SOCKETS}")]
    TooManySockets {
        /// The number of sockets.
        count: usize,
    },
    /// The peer does not send a handover header, or its names do not match the header.
    #[error("the other process does not speak the handover protocol: received {found:?}")]
    UnknownProtocol {
        /// The beginning of the received bytes.
        found: String,
    },
    /// The peer speaks another version of this protocol.
    #[error(
        "the other process speaks version {version} of the handover protocol, this process version \
         {PROTOCOL_VERSION}"
    )]
    UnsupportedVersion {
        /// The version of the peer.
        version: u32,
    },
    /// The peer closed the stream, or sent other bytes, before all sockets were received.
    #[error("received {received} of {announced} announced sockets")]
    MissingSockets {
        /// The number of sockets received; all of them are closed.
        received: usize,
        /// The number of sockets announced.
        announced: usize,
    },
    /// More descriptors were received than were announced. All of them are closed.
    #[error("received more than the {announced} announced sockets")]
    UnexpectedSockets {
        /// The number of sockets announced.
        announced: usize,
    },
    /// The kernel dropped descriptors, most often because this process is at its limit of open files.
    /// The descriptors that were received are closed.
    #[error("the kernel dropped sockets of the handover: the limit of open files is too low")]
    Truncated,
    /// An environment variable for inherited sockets has an invalid value.
    #[error("environment variable {variable} has the invalid value {value:?}")]
    InvalidEnvironment {
        /// The variable.
        variable: &'static str,
        /// The value of the variable.
        value: String,
    },
    /// A descriptor that the environment announces is not open. The descriptors before it are closed.
    #[error("cannot use inherited descriptor {number}: {source}")]
    InheritedDescriptor {
        /// The number of the descriptor.
        number: i32,
        /// The error of the system.
        source: io::Error,
    },
}

/// Sends sockets to the process at the other end of a stream.
///
/// The sockets stay open here: both processes own them. Blocks until all is sent, or until the [write
/// timeout](UnixStream::set_write_timeout) of the stream, which should be set; the stream must not be
/// non-blocking.
///
/// # Errors
/// [`HandoverError::TooManySockets`] and [`InvalidName`](HandoverError::InvalidName) before anything is
/// sent; [`Io`](HandoverError::Io) if the peer does not receive, and then the stream cannot be used any
/// more.
pub fn send(
    stream: &UnixStream,
    sockets: &[(impl AsRef<str>, BorrowedFd<'_>)],
) -> Result<(), HandoverError> {
    let count = sockets.len();
    if count > MAX_SOCKETS {
        return Err(HandoverError::TooManySockets { count });
    }
    let mut names = String::new();
    for (name, _) in sockets {
        let name = name.as_ref();
        if !is_valid_name(name) {
            return Err(HandoverError::InvalidName { name: name.to_owned() });
        }
        names.extend([name, "\n"]);
    }
    let text = format!("{MAGIC} {PROTOCOL_VERSION} {count} {}\n{names}", names.len());
    let mut writer = stream;
    writer.write_all(text.as_bytes())?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|&(_, socket)| socket).collect();
    for message in descriptors.chunks(MAX_FDS_PER_MESSAGE) {
        send_descriptors(stream, message)?;
    }
    Ok(())
}

fn send_descriptors(stream: &UnixStream, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS_PER_MESSAGE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ErrorKind::InvalidInput.into());
    }
    // A closed peer is an error of this call, not a SIGPIPE for the process.
    let flags = SendFlags::NOSIGNAL;
    match retry_on_intr(|| {
        sendmsg(stream, &[IoSlice::new(&[MESSAGE_MARKER])], &mut control, flags)
    })? {
        1 => Ok(()),
        _ => Err(ErrorKind::WriteZero.into()),
    }
}

/// Receives the sockets that the process at the other end of a stream [sends](send), in its order.
///
/// Child processes do not inherit the sockets. Nothing is read beyond the handover, so the stream can
/// be used for other messages afterwards. Blocks until all sockets are received, or until the [read
/// timeout](UnixStream::set_read_timeout) of the stream, which should be set; the stream must not be
/// non-blocking.
///
/// # Errors
/// Any [`HandoverError`] but those of the environment. The sockets that were received are closed then,
/// here and not in the peer, and the stream cannot be used any more.
pub fn receive(stream: &UnixStream) -> Result<Vec<(String, OwnedFd)>, HandoverError> {
    let (announced, len) = read_header(stream)?;
    let names = read_names(stream, announced, len)?;
    let mut descriptors = Vec::with_capacity(announced);
    while descriptors.len() < announced {
        let received = descriptors.len();
        receive_descriptors(stream, &mut descriptors)?;
        if descriptors.len() > announced {
            return Err(HandoverError::UnexpectedSockets { announced });
        }
        if descriptors.len() == received {
            return Err(HandoverError::MissingSockets { received, announced });
        }
    }
    Ok(names.into_iter().zip(descriptors).collect())
}

/// Reads the header line: returns the number of sockets, and the number of bytes of names.
fn read_header(mut stream: &UnixStream) -> Result<(usize, usize), HandoverError> {
    let mut line = Vec::new();
    // One byte at a time: a byte behind the names belongs to a message with descriptors.
    while line.last() != Some(&b'\n') && line.len() < MAX_HEADER_LEN {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) if line.is_empty() => {
                return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
            }
            Ok(0) => break,
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        // A peer of another protocol may wait for an answer and never send a line feed.
        let len = line.len().min(MAGIC.len());
        if line[..len] != MAGIC.as_bytes()[..len] {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    let unknown_protocol = || HandoverError::UnknownProtocol { found: text.trim_end().to_owned() };
    let line = text.strip_suffix('\n').and_then(|line| line.strip_prefix(MAGIC));
    let mut fields =
        line.and_then(|line| line.strip_prefix(' ')).ok_or_else(unknown_protocol)?.split(' ');
    let mut number = || fields.next().map(str::parse::<u32>);
    // Only the position of the version is the same in all versions.
    let Some(Ok(version)) = number() else { return Err(unknown_protocol()) };
    if version != PROTOCOL_VERSION {
        return Err(HandoverError::UnsupportedVersion { version });
    }
    let (Some(Ok(count)), Some(Ok(len)), None) = (number(), number(), number()) else {
        return Err(unknown_protocol());
    };
    let (count, len) = (count as usize, len as usize);
    if count > MAX_SOCKETS {
        return Err(HandoverError::TooManySockets { count });
    }
    match len <= count * (MAX_NAME_LEN + 1) {
        true => Ok((count, len)),
        false => Err(unknown_protocol()),
    }
}

/// Reads the announced names.
fn read_names(
    mut stream: &UnixStream,
    announced: usize,
    len: usize,
) -> Result<Vec<String>, HandoverError> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let names: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
    if let Some(name) = names.iter().find(|name| !is_valid_name(name)) {
        return Err(HandoverError::InvalidName { name: name.clone() });
    }
    if names.len() != announced || (announced > 0 && !text.ends_with('\n')) {
        return Err(HandoverError::UnknownProtocol {
            found: text.chars().take(MAX_HEADER_LEN).collect(),
        });
    }
    Ok(names)
}

/// Receives the descriptors of one message.
fn receive_descriptors(
    stream: &UnixStream,
    descriptors: &mut Vec<OwnedFd>,
) -> Result<(), HandoverError> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut marker = [0];
    let received = retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut marker)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(io::Error::from)?;
    // Taken before the check for truncation, so that an error closes them.
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(HandoverError::Truncated);
    }
    Ok(())
}

/// Tells whether a name is a valid name of a socket.
fn is_valid_name(name: &str) -> bool {
    let is_allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b':';
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_allowed)
}
