//! The server name in a TLS ClientHello, read without ending the TLS.
