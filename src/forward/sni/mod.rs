//! Server name and ALPN of a TLS client, read from its ClientHello without terminating TLS.
//!
//! The first message of a TLS client, the ClientHello, contains the requested server name (SNI,
//! RFC 6066 section 3) and the supported application protocols (ALPN, RFC 7301) in plain text.
//! [`peek()`] parses them from the bytes received so far, so that a forwarder can choose a service by
//! [`ServerNameTable`] or hash the name, and then forward the same bytes unchanged.
//!
//! # Limitations
//! The server name is not authenticated: a client can request any name. A client that uses
//! Encrypted Client Hello (ECH) sends the outer name only, which is that of the provider in front
//! and the same for all services behind it. Only the structure and the two extensions are
//! validated: a server may still reject the ClientHello.
//!
//! # Limits
//! A ClientHello has at most [`MAX_CLIENT_HELLO`] bytes and comes in at most [`MAX_HELLO_RECORDS`]
//! records: a buffer of [`MAX_PEEK_BYTES`] bytes holds any. The caller limits the time.
//!
//! # Examples
//! ```
//! use lvs::forward::sni::{PeekedHello, ServerNameTable, SniError, peek};
//!
//! let services = ServerNameTable::new()
//!     .with_pattern("shop.example.org", "shop")?
//!     .with_pattern("*.example.org", "web")?
//!     .with_default("sorry");
//!
//! # fn example(services: ServerNameTable<&str>, received: &[u8]) -> Result<(), SniError> {
//! match peek(received)? {
//!     PeekedHello::Incomplete { at_least } => println!("at least {at_least} bytes are missing"),
//!     PeekedHello::Hello(hello) => println!("service: {:?}", services.get(hello.server_name())),
//!     _ => {}
//! }
//! # Ok(())
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client_hello;
mod error;
mod host_name;
mod limits;
mod peek;
mod server_name_table;

#[cfg(all(test, not(lvs_loom)))]
mod tests;

pub use self::client_hello::ClientHello;
pub use self::error::SniError;
pub use self::host_name::HostNameError;
pub use self::limits::{MAX_CLIENT_HELLO, MAX_HELLO_RECORDS, MAX_PEEK_BYTES};
pub use self::peek::{PeekedHello, peek};
pub use self::server_name_table::{MAX_SERVER_NAMES, ServerNameTable, ServerNameTableError};
