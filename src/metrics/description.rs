//! The names and HELP texts of metrics.

use metrics::{describe_counter, describe_gauge};

/// A metric with its HELP text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MetricDescription {
    pub(crate) name: &'static str,
    is_counter: bool,
    help: &'static str,
}

impl MetricDescription {
    pub(crate) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, is_counter: true, help }
    }

    pub(crate) const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, is_counter: false, help }
    }
}

/// The metrics of this part.
pub(crate) const METRICS: [MetricDescription; 27] = [
    MetricDescription::gauge("lvs_service_servers", "Servers of a service."),
    MetricDescription::gauge(
        "lvs_service_eligible_servers",
        "Servers of a service that the scheduler may choose.",
    ),
    MetricDescription::gauge(
        "lvs_service_panic",
        "1 while health is ignored because too few servers are healthy.",
    ),
    MetricDescription::gauge(
        "lvs_service_quorum",
        "1 if the healthy servers' total weight meets the configured quorum, or none is configured.",
    ),
    MetricDescription::gauge(
        "lvs_server_state",
        "1 for the state that a server is in, 0 for each other state.",
    ),
    MetricDescription::gauge("lvs_server_eligible", "1 if the scheduler may choose a server."),
    MetricDescription::gauge(
        "lvs_server_weight",
        "The configured weight of a server, with an operator's change.",
    ),
    MetricDescription::gauge(
        "lvs_server_connections",
        "Open connections or UDP flows to a server from this director.",
    ),
    MetricDescription::gauge(
        "lvs_server_max_connections",
        "The connection limit of a server; +Inf without a limit.",
    ),
    MetricDescription::counter(
        "lvs_server_checks_total",
        "Results of a server's health checks, by the name of the check.",
    ),
    MetricDescription::counter(
        "lvs_server_checks_failed_total",
        "Health checks that a server failed, by the name of the check; local errors are not counted.",
    ),
    MetricDescription::counter(
        "lvs_service_accepted_total",
        "Connections accepted, or UDP flows started. Both directors of a pair report the same sum: do not \
         add them.",
    ),
    MetricDescription::counter(
        "lvs_service_refused_total",
        "Connections or flows that no server accepted. Both directors of a pair report the same sum: do \
         not add them.",
    ),
    MetricDescription::counter(
        "lvs_service_refused_by_reason_total",
        "Connections or flows that this director refused, for each reason.",
    ),
    MetricDescription::counter(
        "lvs_service_ended_total",
        "Connections or flows that ended at this director without being refused, for each reason.",
    ),
    MetricDescription::counter(
        "lvs_service_sorry_total",
        "Connections or flows that this director sent to the sorry server.",
    ),
    MetricDescription::counter(
        "lvs_service_limit_waits_total",
        "Connections that waited for another to end, because the service was at its limit.",
    ),
    MetricDescription::counter(
        "lvs_service_failed_accepts_total",
        "Calls of this director that failed to accept a connection or to receive a datagram.",
    ),
    MetricDescription::counter(
        "lvs_service_to_servers_bytes_total",
        "Bytes sent to servers. Both directors of a pair report the same sum: do not add them.",
    ),
    MetricDescription::counter(
        "lvs_service_to_clients_bytes_total",
        "Bytes sent to clients. Both directors of a pair report the same sum: do not add them.",
    ),
    MetricDescription::gauge(
        "lvs_service_connections",
        "Open connections or UDP flows of a service at this director.",
    ),
    MetricDescription::gauge(
        "lvs_client_descriptors",
        "File descriptors that the connections and flows of this process have taken.",
    ),
    MetricDescription::gauge(
        "lvs_max_client_descriptors",
        "File descriptors that connections and flows may take; TCP clients wait beyond it.",
    ),
    MetricDescription::counter(
        "lvs_server_connections_total",
        "Connections established to a server, or UDP flows started, by this director.",
    ),
    MetricDescription::counter(
        "lvs_server_failed_connections_total",
        "Connection attempts to a server that failed: refused, timed out or unreachable.",
    ),
    MetricDescription::counter(
        "lvs_server_in_bytes_total",
        "Bytes sent to a server by this director.",
    ),
    MetricDescription::counter(
        "lvs_server_out_bytes_total",
        "Bytes received from a server by this director.",
    ),
];

/// Gives the recorder the HELP text of each metric of this module. Once is enough.
pub fn describe() {
    describe_all(METRICS);
}

pub(crate) fn describe_all(metrics: impl IntoIterator<Item = MetricDescription>) {
    for MetricDescription { name, is_counter, help } in metrics {
        match is_counter {
            true => describe_counter!(name, help),
            false => describe_gauge!(name, help),
        }
    }
}
