//! The log lines of connections and flows that have ended: `[log] connections`.

use std::time::Duration;

use tracing::field::display;
use tracing::info;

use super::config::LogFormat;
use crate::engine::EngineFlowRecord;
use crate::forward::{ConnectionRecord, FlowRecord};

/// Logs the record of a connection: as fields in JSON, where a field that does not apply is left out, and
/// as the line with keys in text, which always has all of them.
pub(super) fn log_connection(record: &ConnectionRecord, format: LogFormat) {
    if format != LogFormat::Json {
        return info!(target: "lvs::connection", "{}", record.key_values());
    }
    // The first field is the time.
    let time = record.fields().next().map(|(_, time)| display(time));
    info!(
        target: "lvs::connection",
        time,
        service = &*record.service,
        end = record.termination.code(),
        client = record.client.map(display),
        proxied_client = record.proxied_client.map(display),
        local = record.local.map(display),
        backend = record.backend.as_ref().map(|backend| backend.as_str()),
        address = record.backend_address.map(display),
        queue_ms = millis(record.queue_time),
        connect_ms = record.connect_time.map(millis),
        total_ms = millis(record.total_time),
        sent = record.bytes_to_backend,
        received = record.bytes_to_client,
        attempts = record.attempts,
        on_listener = record.listener_connections,
        on_backend = record.backend_connections,
        refusal = record.refusal,
        "connection ended"
    );
}

/// Logs the record of a UDP flow, as [`log_connection`] does.
pub(super) fn log_flow(record: &FlowRecord, format: LogFormat) {
    if format != LogFormat::Json {
        return info!(target: "lvs::flow", "{record}");
    }
    info!(
        target: "lvs::flow",
        service = &*record.service,
        end = record.end,
        client = display(record.client),
        local = display(record.local),
        backend = record.backend.as_str(),
        total_ms = millis(record.total_time),
        requests = record.requests,
        replies = record.replies,
        "flow ended"
    );
}

/// Logs the record of a flow that an engine has carried, as [`log_connection`] does.
pub(super) fn log_engine_flow(record: &EngineFlowRecord, format: LogFormat) {
    if format != LogFormat::Json {
        return info!(target: "lvs::flow", "{record}");
    }
    info!(
        target: "lvs::flow",
        service = record.service,
        end = record.end.name(),
        protocol = record.protocol.name(),
        client = display(record.client),
        local = display(record.local),
        backend = record.backend.as_ref().map(|backend| backend.as_str()),
        address = display(record.destination),
        total_ms = millis(record.total_time),
        sent = record.bytes_to_server,
        received = record.bytes_to_client,
        "flow ended"
    );
}

/// Returns milliseconds with three digits after the point, as the text has them.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
