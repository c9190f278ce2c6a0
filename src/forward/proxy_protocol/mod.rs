//! The PROXY protocol, versions 1 and 2: who the client is, told before its first byte.
