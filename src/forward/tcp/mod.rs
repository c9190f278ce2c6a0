//! The TCP forwarder: its worker threads, their connections, and how bytes move.
//!
//! | file | holds |
//! |---|---|
//! | `forwarder`, `start` | [`Forwarder`], and its start on worker threads |
//! | `handle`, `metrics` | [`TcpHandle`], and the counters that the handle reads |
//! | `worker` | the accept loop of a worker thread, and its drain |
//! | `connection` | one connection from accept to end |
//! | `preamble` | the PROXY header and the TLS ClientHello before the first byte |
//! | `backend_connect` | the choice of a backend and the connect to it |
//! | `proxying`, `relay`, `stream`, `pipe` | the bytes of an established connection |
//! | `session` | what a connection holds and counts until it ends |
//! | `context`, `config`, `options`, `socket_options` | what all connections of a forwarder share |

mod backend_connect;
mod client_info;
mod config;
mod connect_progress;
mod connection;
mod context;
mod forwarder;
mod handle;
mod listener;
mod metrics;
mod options;
mod pipe;
mod preamble;
mod proxying;
mod relay;
mod session;
mod socket_options;
mod start;
mod stream;
mod worker;

pub use self::forwarder::Forwarder;
pub use self::handle::TcpHandle;
#[cfg(feature = "director")]
pub(crate) use self::options::TcpOptions;
pub use self::preamble::ProxyHeaderOptions;
pub use self::socket_options::SourceAddress;
