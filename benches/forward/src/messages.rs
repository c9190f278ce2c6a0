//! The HTTP requests of the load and the answers of the backends.

/// The answer on a connection that stays open.
pub(crate) const KEPT: &[u8] = answer!("keep-alive");
/// The answer after which the backend closes the connection.
pub(crate) const CLOSED: &[u8] = answer!("close");
/// A request that keeps the connection open.
pub(crate) const KEEP: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
/// A request after whose answer the backend closes the connection.
pub(crate) const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n";

/// An HTTP answer with a body of 128 bytes.
macro_rules! answer {
    ($connection:literal) => {
        concat!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: ",
            $connection,
            "\r\nContent-Length: 128\r\n\r\n",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        )
        .as_bytes()
    };
}
use answer;
