//! The built-in checks, one file each.

mod tcp;

pub use self::tcp::TcpCheck;
