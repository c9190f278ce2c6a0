//! The built-in checks, one file each.

mod command;
mod datagram;
#[cfg(feature = "health-dns")]
mod dns;
mod file;
mod icmp;
mod tcp;
mod udp;

pub use self::command::CommandCheck;
#[cfg(feature = "health-dns")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-dns")))]
pub use self::dns::{DnsCheck, DnsCheckError};
pub use self::file::FileCheck;
pub use self::icmp::IcmpCheck;
pub use self::tcp::TcpCheck;
pub use self::udp::{BytePattern, BytePatternError, UdpCheck};
