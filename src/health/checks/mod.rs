//! The built-in checks, one file each.

#[cfg(feature = "health-grpc")]
mod grpc;
mod http;
mod tcp;
#[cfg(feature = "health-tls")]
mod tls;

#[cfg(feature = "health-grpc")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-grpc")))]
pub use self::grpc::GrpcCheck;
pub use self::http::{HttpCheck, HttpCheckError};
pub use self::tcp::TcpCheck;
#[cfg(feature = "health-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "health-tls")))]
pub use self::tls::{Tls, TlsCheck, TlsError};
