//! The kinds of traffic.

/// A kind of traffic, which has a port of its own at each backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Traffic {
    Tcp,
    /// UDP datagrams that the backend sends back.
    Echo,
    /// UDP datagrams that arrive coalesced and are not sent back.
    Sink,
}
