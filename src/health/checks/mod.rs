//! The built-in checks, one file each.

mod http;
mod tcp;

pub use self::http::{HttpCheck, HttpCheckError};
pub use self::tcp::TcpCheck;
