//! The built-in checks, one file each.

mod http;
mod tcp;
#[cfg(feature = "health-tls")]
mod tls;

pub use self::http::{HttpCheck, HttpCheckError};
pub use self::tcp::TcpCheck;
#[cfg(feature = "health-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
pub use self::tls::{Tls, TlsCheck, TlsError};
