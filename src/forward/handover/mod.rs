//! Handing listening sockets to a successor, so that a restart refuses no connection.
//!
//! A listening socket is more than its address: the kernel keeps the connections that nobody has
//! accepted yet in its queue. A process that closes its listener and a successor that binds anew
//! lose them. A successor that gets the very same socket finds them all.
//!
//! - [`send`] and [`receive`] hand sockets from a running process to another over a Unix socket.
//! - [`from_environment`] takes those that a service manager opened ahead of the start, as systemd's
//!   socket units do.
//!
//! Each socket has a name, by which the successor knows what it is for. Several may share one: the
//! listeners of the workers of one service.
//!
//! # A restart
//! 1. The successor starts, connects to the predecessor's Unix socket, and calls [`receive`].
//! 2. The predecessor calls [`send`]. From here on both own the sockets, and either may accept.
//! 3. The successor begins to accept, and says so: a byte on the same stream does.
//! 4. The predecessor, told so, [shuts down](super::Handle::shutdown) with time to drain. If the
//!    successor dies before, the stream ends instead, and the predecessor goes on as if nothing
//!    had been.
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
//!     let taken = TcpListener::from(descriptor);
//!     assert_eq!((&*name, taken.local_addr()?), ("web", listener.local_addr()?));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Trust
//! Who may connect to the Unix socket may take the listeners: keep it in a directory of the
//! service's own. [`receive`] believes its peer in nothing: what comes is bounded, and a descriptor
//! that was not announced is closed.
//!
//! # On the wire
//! A line, `lvs-handover 1 2 8`: the version, how many sockets, how many bytes of names. The names,
//! each with a line feed behind it. Then one byte, `+`, for each message with up to
//! 253 descriptors (`SCM_RIGHTS`, `unix(7)`), in the order of the names.

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

/// The longest name of a socket in bytes, that of systemd.
pub const MAX_NAME_LEN: usize = 255;

/// The most descriptors that the kernel takes in one message (`SCM_MAX_FD`).
const MAX_FDS_PER_MESSAGE: usize = 253;

const MAGIC: &str = "lvs-handover";
const PROTOCOL_VERSION: u32 = 1;

/// Longer than any line that begins a handover.
const MAX_HEADER_LEN: usize = 64;

/// What a message with descriptors holds beside them: the kernel wants a byte.
const MESSAGE_MARKER: u8 = b'+';

/// Why sockets were not handed over.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// Nothing can be written to the peer, or read from it; `WouldBlock` if it took longer than the
    /// timeout of the stream.
    #[error("cannot talk to the other process")]
    Io(#[from] io::Error),
    /// A name is empty, longer than [`MAX_NAME_LEN`], or has a byte that is not printable ASCII, or a
    /// colon, which separates names in [`from_environment`].
    #[error("{name:?} cannot be the name of a socket")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// There are more sockets than [`MAX_SOCKETS`].
    #[error("{count} sockets, of which at most {MAX_SOCKETS} are handed over")]
    TooManySockets {
        /// How many.
        count: usize,
    },
    /// What comes does not begin as a handover does, or its names are not as announced.
    #[error("the other process sends something else: {found:?}")]
    UnknownProtocol {
        /// The beginning of what comes.
        found: String,
    },
    /// The peer speaks another version of this protocol.
    #[error("the other process speaks version {version}, this one {PROTOCOL_VERSION}")]
    UnsupportedVersion {
        /// The version of the peer.
        version: u32,
    },
    /// The peer closed the stream, or sent something else, before all sockets were there.
    #[error("{received} of {announced} sockets came")]
    MissingSockets {
        /// How many came, all of which are closed again.
        received: usize,
        /// How many were to come.
        announced: usize,
    },
    /// More descriptors came with a message than were announced. All are closed again.
    #[error("more sockets came than the {announced} announced")]
    UnexpectedSockets {
        /// How many were to come.
        announced: usize,
    },
    /// The kernel could not hand over all that was sent, most often because this process is at its
    /// limit of open files. All that came are closed again.
    #[error("sockets were lost on the way: the limit of open files is too low")]
    Truncated,
    /// What the environment says of inherited sockets cannot be.
    #[error("environment variable {variable} has the impossible value {value:?}")]
    InvalidEnvironment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// A descriptor that the environment announces is not open. Those before it are closed.
    #[error("inherited descriptor {number} cannot be used")]
    InheritedDescriptor {
        /// Its number.
        number: i32,
        /// What the system said.
        source: io::Error,
    },
}

/// Hands sockets to the process at the other end of a stream.
///
/// They stay open here: both processes own them from then on. Blocks until all is sent, or until
/// the [write timeout](UnixStream::set_write_timeout) of the stream, of which it is best to set one;
/// the stream must not be non-blocking.
///
/// # Errors
/// [`HandoverError::TooManySockets`] and `Name` before anything is sent; `Io` if the peer does not take
/// it, after which the stream is of no more use.
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
    // A peer that is gone is an error here and no signal.
    let flags = SendFlags::NOSIGNAL;
    match retry_on_intr(|| {
        sendmsg(stream, &[IoSlice::new(&[MESSAGE_MARKER])], &mut control, flags)
    })? {
        1 => Ok(()),
        _ => Err(ErrorKind::WriteZero.into()),
    }
}

/// Takes the sockets that the process at the other end of a stream [sends](send), in its order.
///
/// Children of this process do not inherit them. Nothing is read beyond the handover, so the stream
/// can carry on with whatever the two agree on. Blocks until all is there, or until the
/// [read timeout](UnixStream::set_read_timeout) of the stream, of which it is best to set one; the
/// stream must not be non-blocking.
///
/// # Errors
/// Any [`HandoverError`] but those of the environment. Everything that came is closed then, here
/// and not in the peer, and the stream is of no more use.
pub fn receive(stream: &UnixStream) -> Result<Vec<(String, OwnedFd)>, HandoverError> {
    let (announced, len) = read_header(stream)?;
    let names = read_names(stream, announced, len)?;
    let mut descriptors = Vec::with_capacity(announced);
    while descriptors.len() < announced {
        let before = descriptors.len();
        receive_descriptors(stream, &mut descriptors)?;
        if descriptors.len() > announced {
            return Err(HandoverError::UnexpectedSockets { announced });
        }
        if descriptors.len() == before {
            return Err(HandoverError::MissingSockets { received: before, announced });
        }
    }
    Ok(names.into_iter().zip(descriptors).collect())
}

/// Reads the line that says what comes: how many sockets, and how many bytes of names.
fn read_header(mut stream: &UnixStream) -> Result<(usize, usize), HandoverError> {
    let mut line = Vec::new();
    // One byte at a time, so as not to read what belongs to the descriptors.
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
        // Whoever speaks something else may wait for an answer and never send a line feed.
        let begun = line.len().min(MAGIC.len());
        if line[..begun] != MAGIC.as_bytes()[..begun] {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    let foreign = || HandoverError::UnknownProtocol { found: text.trim_end().to_owned() };
    let line = text.strip_suffix('\n').and_then(|line| line.strip_prefix(MAGIC));
    let mut words = line.and_then(|line| line.strip_prefix(' ')).ok_or_else(foreign)?.split(' ');
    let mut number = || words.next().map(str::parse::<u32>);
    // Of another version no more is known than where it says which.
    let Some(Ok(version)) = number() else { return Err(foreign()) };
    if version != PROTOCOL_VERSION {
        return Err(HandoverError::UnsupportedVersion { version });
    }
    let (Some(Ok(count)), Some(Ok(len)), None) = (number(), number(), number()) else {
        return Err(foreign());
    };
    let (count, len) = (count as usize, len as usize);
    if count > MAX_SOCKETS {
        return Err(HandoverError::TooManySockets { count });
    }
    match len <= count * (MAX_NAME_LEN + 1) {
        true => Ok((count, len)),
        false => Err(foreign()),
    }
}

/// Reads as many names as were announced.
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

/// Takes the descriptors of one message.
fn receive_descriptors(stream: &UnixStream, into: &mut Vec<OwnedFd>) -> Result<(), HandoverError> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_FDS_PER_MESSAGE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut mark = [0];
    let received = retry_on_intr(|| {
        recvmsg(stream, &mut [IoSliceMut::new(&mut mark)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(io::Error::from)?;
    // Taken before anything is refused: what is taken is closed.
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            into.extend(descriptors);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(HandoverError::Truncated);
    }
    Ok(())
}

/// Tells whether this can be the name of a socket.
fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && byte != b':';
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(allowed)
}
