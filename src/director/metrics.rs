//! The metrics of a director, in Prometheus' text format.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::counters::CountedSince;
use super::status::{DirectorStatus, ServerStatus, ServiceStatus, StatusReader};
use crate::health::MonitorCounters;
use crate::vrrp::{VrrpState, VrrpStatus};

/// Counters with their HELP texts. Label values are names of services and addresses of servers, or come
/// from fixed lists: no client can add a time series.
const COUNTERS: [(&str, &str); 22] = [
    (
        "lvs_task_restarts_total",
        "Panics after which a task of the director started again, by task: a fault that is worth a report.",
    ),
    (
        "lvs_log_dropped_lines_total",
        "Log lines dropped, because they were not read from the program's standard error in time.",
    ),
    ("lvs_checks_total", "Health checks started."),
    (
        "lvs_checks_failed_total",
        "Health checks that the server failed; local errors are not counted.",
    ),
    (
        "lvs_checks_not_run_total",
        "Health checks that could not run on this machine, which the status gives the reason of.",
    ),
    (
        "lvs_checks_late_total",
        "Health checks that started late: by more than a tenth of their interval.",
    ),
    (
        "lvs_service_accepted_total",
        "Connections accepted, or UDP flows started. Both directors of a pair report the same sum: do not \
         add them.",
    ),
    (
        "lvs_service_refused_total",
        "Connections or flows that no server accepted. Both directors of a pair report the same sum: do \
         not add them.",
    ),
    (
        "lvs_service_refused_by_reason_total",
        "Connections or flows that this director refused, for each reason.",
    ),
    (
        "lvs_service_to_servers_bytes_total",
        "Bytes sent to servers. Both directors of a pair report the same sum: do not add them.",
    ),
    (
        "lvs_service_to_clients_bytes_total",
        "Bytes sent to clients. Both directors of a pair report the same sum: do not add them.",
    ),
    (
        "lvs_server_connections_total",
        "Connections established to a server, or UDP flows started, by this director.",
    ),
    (
        "lvs_server_failed_connections_total",
        "Connection attempts to a server that failed: refused, timed out or unreachable.",
    ),
    ("lvs_server_in_bytes_total", "Bytes sent to a server by this director."),
    ("lvs_server_out_bytes_total", "Bytes received from a server by this director."),
    ("lvs_vrrp_transitions_total", "State transitions of a virtual router, by the state entered."),
    ("lvs_vrrp_adverts_sent_total", "VRRP advertisements sent."),
    ("lvs_vrrp_adverts_unsent_total", "VRRP advertisements that the system failed to send."),
    ("lvs_vrrp_adverts_received_total", "VRRP advertisements received."),
    (
        "lvs_vrrp_adverts_mismatched_total",
        "VRRP advertisements whose addresses or interval differ from this director's configuration.",
    ),
    ("lvs_vrrp_adverts_refused_total", "VRRP advertisements refused, by reason."),
    (
        "lvs_vrrp_conflicts_total",
        "Times that another machine used a virtual address while this director was master.",
    ),
];

/// Gauges with their HELP texts.
const GAUGES: [(&str, &str); 19] = [
    ("lvs_build_info", "Always 1; the version is a label."),
    ("lvs_uptime_seconds", "Time since the director started."),
    ("lvs_active", "1 if this director serves the virtual addresses, or has no [vrrp] table."),
    ("lvs_service_connections", "Open connections or UDP flows of a service at this director."),
    ("lvs_service_panic", "1 while health is ignored because too few servers are healthy."),
    (
        "lvs_service_quorum",
        "1 if the healthy servers' total weight meets the configured quorum, or none is configured.",
    ),
    ("lvs_service_persistent_clients", "Entries of the persistence table."),
    ("lvs_service_servers", "Servers of a service."),
    ("lvs_service_eligible_servers", "Servers of a service that the scheduler may choose."),
    ("lvs_server_weight", "The configured weight of a server, with an operator's change."),
    ("lvs_server_connections", "Open connections or UDP flows to a server from this director."),
    ("lvs_server_eligible", "1 if the scheduler may choose a server."),
    ("lvs_server_connect_seconds", "Connect time of a server, by quantile."),
    ("lvs_vrrp_state", "1 for the state that a virtual router is in, 0 for each other state."),
    (
        "lvs_vrrp_priority",
        "The current priority of a virtual router, with the effects of its tracked items.",
    ),
    ("lvs_vrrp_lateness_seconds", "How late the timers of the VRRP election fire, by quantile."),
    ("lvs_vrrp_lateness_max_seconds", "The latest that a timer of the VRRP election has fired."),
    (
        "lvs_sync_in_sync",
        "1 if a standby is connected to this active director, or if this standby has the whole state.",
    ),
    (
        "lvs_reload_failed",
        "1 for each part of the configuration that the last reload could not apply.",
    ),
];

/// Renders the metrics of this moment. Each call starts with an empty recorder, so that a service or
/// server that was removed leaves no time series behind.
pub(super) fn render(reader: &StatusReader) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
        GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
        let status = reader.read(CountedSince::Start);
        record_director(&status, reader.check_counters());
        status.services.iter().for_each(record_service);
        if let Some(vrrp) = &status.vrrp {
            record_vrrp(vrrp);
        }
    });
    handle.render()
}

fn gauge_of_bool(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn record_director(status: &DirectorStatus, checks: MonitorCounters) {
    gauge!("lvs_build_info", "version" => status.version).set(1.0);
    gauge!("lvs_uptime_seconds").set(status.uptime_ms as f64 / 1e3);
    gauge!("lvs_active").set(gauge_of_bool(status.active));
    for (task, restarts) in &status.task_restarts {
        counter!("lvs_task_restarts_total", "task" => *task).absolute(*restarts);
    }
    counter!("lvs_log_dropped_lines_total").absolute(status.dropped_log_lines);
    counter!("lvs_checks_total").absolute(checks.checks_started);
    counter!("lvs_checks_failed_total").absolute(checks.backend_failures);
    counter!("lvs_checks_not_run_total").absolute(checks.local_failures);
    counter!("lvs_checks_late_total").absolute(checks.late_checks);
    for failed in &status.failed_parts {
        gauge!("lvs_reload_failed", "part" => failed.part.clone()).set(1.0);
    }
    if let Some(sync) = &status.sync {
        gauge!("lvs_sync_in_sync").set(gauge_of_bool(sync.followers > 0 || sync.in_sync));
    }
}

fn record_service(service: &ServiceStatus) {
    let labels = vec![Label::new("service", service.name.clone())];
    let count = |name: &'static str, value: u64| counter!(name, labels.clone()).absolute(value);
    count("lvs_service_accepted_total", service.totals.accepted);
    count("lvs_service_refused_total", service.totals.refused);
    count("lvs_service_to_servers_bytes_total", service.totals.bytes_to_servers);
    count("lvs_service_to_clients_bytes_total", service.totals.bytes_to_clients);
    for (reason, times) in &service.refused {
        let labels = [labels.clone(), vec![Label::new("reason", *reason)]].concat();
        counter!("lvs_service_refused_by_reason_total", labels).absolute(*times);
    }
    let show = |name: &'static str, value: f64| gauge!(name, labels.clone()).set(value);
    show("lvs_service_connections", service.active as f64);
    show("lvs_service_panic", gauge_of_bool(service.panicking));
    show("lvs_service_quorum", gauge_of_bool(service.quorum));
    show("lvs_service_persistent_clients", service.persistent as f64);
    show("lvs_service_servers", service.servers.len() as f64);
    let eligible = service.servers.iter().filter(|server| server.state == "eligible").count();
    show("lvs_service_eligible_servers", eligible as f64);
    for server in &service.servers {
        let address = Label::new("server", server.address.clone());
        record_server(server, [labels.clone(), vec![address]].concat());
    }
}

fn record_server(server: &ServerStatus, labels: Vec<Label>) {
    let count = |name: &'static str, value: u64| counter!(name, labels.clone()).absolute(value);
    count("lvs_server_connections_total", server.totals.connections);
    count("lvs_server_failed_connections_total", server.totals.failed);
    count("lvs_server_in_bytes_total", server.totals.bytes_in);
    count("lvs_server_out_bytes_total", server.totals.bytes_out);
    let show = |name: &'static str, value: f64| gauge!(name, labels.clone()).set(value);
    show("lvs_server_weight", server.weight.into());
    show("lvs_server_connections", f64::from(server.active) + f64::from(server.inactive));
    show("lvs_server_eligible", gauge_of_bool(server.state == "eligible"));
    for (quantile, millis) in [("0.5", server.connect_p50_ms), ("0.99", server.connect_p99_ms)] {
        if let Some(millis) = millis {
            let labels = [labels.clone(), vec![Label::new("quantile", quantile)]].concat();
            gauge!("lvs_server_connect_seconds", labels).set(millis / 1e3);
        }
    }
}

fn record_vrrp(status: &VrrpStatus) {
    for router in &status.routers {
        let labels = vec![Label::new("router", router.name.clone())];
        let with = |name: &'static str, value: &str| {
            [labels.clone(), vec![Label::new(name, value.to_owned())]].concat()
        };
        for state in [VrrpState::Init, VrrpState::Backup, VrrpState::Master, VrrpState::Fault] {
            let labels = with("state", &state.to_string());
            gauge!("lvs_vrrp_state", labels.clone()).set(gauge_of_bool(router.state == state));
            let times = router.transitions.get(&state).copied().unwrap_or_default();
            counter!("lvs_vrrp_transitions_total", labels).absolute(times);
        }
        gauge!("lvs_vrrp_priority", labels.clone()).set(f64::from(router.priority));
        let adverts = &router.adverts;
        let count = |name: &'static str, value: u64| counter!(name, labels.clone()).absolute(value);
        count("lvs_vrrp_adverts_sent_total", adverts.sent);
        count("lvs_vrrp_adverts_unsent_total", adverts.unsent);
        count("lvs_vrrp_adverts_received_total", adverts.received);
        count("lvs_vrrp_adverts_mismatched_total", adverts.mismatched);
        count("lvs_vrrp_conflicts_total", adverts.conflicts);
        for (reason, times) in &adverts.refused {
            counter!("lvs_vrrp_adverts_refused_total", with("reason", reason)).absolute(*times);
        }
    }
    let lateness = &status.lateness;
    for quantile in [0.5, 0.99] {
        let delay = lateness.quantile(quantile).unwrap_or_default();
        let labels = [("quantile", quantile.to_string())];
        gauge!("lvs_vrrp_lateness_seconds", &labels).set(delay.as_secs_f64());
    }
    gauge!("lvs_vrrp_lateness_max_seconds").set(lateness.max().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dashboard and the alerts use metrics that exist, and every metric has a HELP text and a value.
    #[test]
    fn every_metric_in_use_is_described() {
        let known: Vec<_> = COUNTERS.iter().chain(&GAUGES).map(|(name, _)| *name).collect();
        for text in [
            include_str!("../../contrib/grafana-dashboard.json"),
            include_str!("../../contrib/prometheus-alerts.yml"),
        ] {
            let names = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
            let names: Vec<_> = names.filter(|word| word.starts_with("lvs_")).collect();
            assert!(names.len() > 5);
            for name in names {
                assert!(known.contains(&name), "{name}");
            }
        }
        let own = include_str!("metrics.rs");
        for (name, _) in COUNTERS.iter().chain(&GAUGES) {
            assert!(
                own.matches(&format!("\"{name}\"")).count() > 1,
                "{name} is described, and never recorded"
            );
        }
    }
}
