//! The UDP forwarder: flows, batches, and what becomes of them.
