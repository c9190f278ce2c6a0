//! Which name a TLS client asks for, read without ending its TLS.
//!
//! A TLS client says in its first message, the ClientHello, which server it wants (SNI, RFC 6066
//! section 3) and which protocols it would speak (ALPN, RFC 7301). Both are readable before any key
//! is agreed. [`peek`] reads them from the bytes that have arrived, so that a forwarder can choose
//! a service by [`ServerNameTable`] or hash the name, and then pass on the very same bytes.
//!
//! # What it is not
//! Nothing is proven by the name: a client can ask for any. A client that uses Encrypted Client
//! Hello (ECH) shows the outer name only, which is that of the provider in front and the same for
//! all services behind it. That a hello can be read does not mean that it is a good one: only what
//! is asked for here is checked.
//!
//! # Bounds
//! A hello has at most [`MAX_CLIENT_HELLO`] bytes and comes in at most [`MAX_HELLO_RECORDS`] records: a buffer of
//! [`MAX_PEEK_BYTES`] bytes holds any. How long a client may take is for the caller to say.
//!
//! # Examples
//! ```
//! use lvs::forward::sni::{ServerNameTable, PeekedHello, peek};
//!
//! let services = ServerNameTable::new()
//!     .with("shop.example.org", "shop")?
//!     .with("*.example.org", "web")?
//!     .or("sorry");
//!
//! # fn example(services: ServerNameTable<&str>, arrived: &[u8]) -> Result<(), lvs::forward::sni::SniError> {
//! match peek(arrived)? {
//!     PeekedHello::Incomplete { at_least } => println!("{at_least} bytes or more to come"),
//!     PeekedHello::Hello(hello) => println!("goes to {:?}", services.get(hello.server_name())),
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
