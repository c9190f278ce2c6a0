//! The record of a flow that has ended, for a log.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use crate::BackendId;

/// The record of a UDP flow that has ended, for a log. Datagrams that no flow was started for have no
/// record; [`ShedCounters`](super::ShedCounters) counts them.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FlowRecord {
    /// The name of the service.
    pub service: Arc<str>,
    /// The client.
    pub client: SocketAddr,
    /// The address that the client sent to.
    pub local: SocketAddr,
    /// The last backend of the flow; `sorry_server` for the sorry server.
    pub backend: BackendId,
    /// The time from the first datagram to the end.
    pub total_time: Duration,
    /// Datagrams of the client.
    pub requests: u64,
    /// Datagrams of the backend.
    pub replies: u64,
    /// Why the flow ended, by the name that
    /// [`FlowEndCounters::by_reason`](super::FlowEndCounters::by_reason) has for the reason, such as
    /// `idle`.
    pub end: &'static str,
}

impl fmt::Display for FlowRecord {
    /// Writes one line of keys with values: `service=dns end=idle client=...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, client, local, backend, total_time, requests, replies, end } = self;
        write!(
            f,
            "service={service} end={end} client={client} local={local} backend={backend} \
             total_ms={}.{:03} requests={requests} replies={replies}",
            total_time.as_millis(),
            total_time.subsec_micros() % 1000,
        )
    }
}

/// The callback for flows that have ended.
#[derive(Clone)]
pub(super) struct FlowEndCallback(Arc<dyn Fn(&FlowRecord) + Send + Sync>);

impl FlowEndCallback {
    pub(super) fn new(call: impl Fn(&FlowRecord) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Calls the callback. A panic is caught: it must not end the other flows of the worker.
    pub(super) fn call(&self, record: &FlowRecord) {
        if catch_unwind(AssertUnwindSafe(|| (self.0)(record))).is_err() {
            error!(
                "service {}: the `on_end` callback panicked; the record of the flow: {record}",
                record.service
            );
        }
    }
}

impl fmt::Debug for FlowEndCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowEndCallback")
    }
}
