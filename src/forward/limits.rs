//! Who may come in: connections per client and the rate of accepts.
