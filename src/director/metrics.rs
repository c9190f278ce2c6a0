//! The metrics of a director, in Prometheus' text format: those of its parts, which programs without a
//! director have too ([`crate::metrics`]), and its own.

use std::time::UNIX_EPOCH;

use metrics::{Label, counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::config::EngineKind;
use super::counters::CountedSince;
use super::metrics_histogram::{HistogramSeries, render_histogram};
use super::packet_metrics::record_packet;
#[cfg(target_os = "linux")]
use super::process_metrics::render_process;
use super::service::VirtualService;
use super::status::{DirectorStatus, StatusReader};
use crate::announce::{AnnounceStatus, AnnouncementState};
use crate::metrics::{
    MetricDescription, describe_all, record_checks, record_descriptors, record_set,
};
use crate::vrrp::{VrrpState, VrrpStatus};

/// The metrics that only a director has. Label values are names of services and addresses of servers, or
/// come from fixed lists: no client can add a time series.
const METRICS: [MetricDescription; 36] = [
    MetricDescription::gauge("lvs_build_info", "Always 1; the version is a label."),
    MetricDescription::gauge("lvs_uptime_seconds", "Time since the director started."),
    MetricDescription::gauge(
        "lvs_active",
        "1 if this director serves the virtual addresses, or has no [vrrp] table.",
    ),
    MetricDescription::counter(
        "lvs_task_restarts_total",
        "Panics after which a task of the director started again, by task: a fault that is worth a report.",
    ),
    MetricDescription::counter(
        "lvs_log_dropped_lines_total",
        "Log lines dropped, because they were not read from the program's standard error in time.",
    ),
    MetricDescription::counter("lvs_checks_total", "Health checks started."),
    MetricDescription::counter(
        "lvs_checks_failed_total",
        "Health checks that the server failed; local errors are not counted.",
    ),
    MetricDescription::counter(
        "lvs_checks_not_run_total",
        "Health checks that could not run on this machine; the status of the servers gives the reason.",
    ),
    MetricDescription::counter(
        "lvs_checks_late_total",
        "Health checks that started late: by more than a tenth of their interval.",
    ),
    MetricDescription::gauge(
        "lvs_service_max_connections",
        "The limit of open connections or UDP flows of each listener of a service.",
    ),
    MetricDescription::gauge("lvs_service_persistent_clients", "Entries of the persistence table."),
    MetricDescription::counter(
        "lvs_server_state_changes_total",
        "Changes of a server's state, by whatever reason.",
    ),
    MetricDescription::counter(
        "lvs_vrrp_transitions_total",
        "State transitions of a virtual router, by the state entered.",
    ),
    MetricDescription::counter("lvs_vrrp_adverts_sent_total", "VRRP advertisements sent."),
    MetricDescription::counter(
        "lvs_vrrp_adverts_unsent_total",
        "VRRP advertisements that the system failed to send.",
    ),
    MetricDescription::counter("lvs_vrrp_adverts_received_total", "VRRP advertisements received."),
    MetricDescription::counter(
        "lvs_vrrp_adverts_mismatched_total",
        "VRRP advertisements whose addresses or interval differ from this director's configuration.",
    ),
    MetricDescription::counter(
        "lvs_vrrp_adverts_refused_total",
        "VRRP advertisements refused, by reason.",
    ),
    MetricDescription::counter(
        "lvs_vrrp_conflicts_total",
        "Times that another machine used a virtual address while this director was master.",
    ),
    MetricDescription::gauge(
        "lvs_vrrp_state",
        "1 for the state that a virtual router is in, 0 for each other state.",
    ),
    MetricDescription::gauge(
        "lvs_vrrp_priority",
        "The current priority of a virtual router, with the effects of its tracked items.",
    ),
    MetricDescription::gauge(
        "lvs_vrrp_lateness_max_seconds",
        "The latest that a timer of the VRRP election has fired.",
    ),
    MetricDescription::gauge(
        "lvs_announce_state",
        "1 for the state that an announced address is in, 0 for each other state.",
    ),
    MetricDescription::gauge(
        "lvs_announce_metric",
        "The metric with which an address is announced; none while it is withdrawn.",
    ),
    MetricDescription::counter(
        "lvs_announce_changes_total",
        "Changes of the state of an announced address.",
    ),
    MetricDescription::counter(
        "lvs_announce_restored_total",
        "Times that another program had removed the route of an announced address, which was added again.",
    ),
    MetricDescription::gauge(
        "lvs_announce_failed",
        "1 if the kernel refuses a route of an announced address; the status has the error.",
    ),
    MetricDescription::gauge(
        "lvs_sync_in_sync",
        "1 if a standby is connected to this active director, or if this standby has the whole state.",
    ),
    MetricDescription::gauge(
        "lvs_sync_different_tables",
        "Services for which this standby chooses servers by another table than the active director, for more than 10 s.",
    ),
    MetricDescription::gauge(
        "lvs_service_fingerprint",
        "53 bits of the fingerprint of scheduler, servers and weights: directors that choose alike have the same.",
    ),
    MetricDescription::counter(
        "lvs_sync_flows_total",
        "Flows of the packet engine: sent to a standby, and as a standby restored, or unknown here.",
    ),
    MetricDescription::counter(
        "lvs_reloads_total",
        "Reloads, the start included, by result: applied, partial, or refused, which changes nothing.",
    ),
    MetricDescription::gauge(
        "lvs_reload_failed",
        "1 for each part of the configuration that the last reload could not apply.",
    ),
    MetricDescription::gauge(
        "lvs_last_reload_successful",
        "1 if the last reload applied every change of the configuration.",
    ),
    MetricDescription::gauge(
        "lvs_last_reload_timestamp_seconds",
        "The time at which the last reload ended, since the Unix epoch.",
    ),
    MetricDescription::gauge("lvs_checks_in_flight", "Health checks that run now."),
];

/// Histograms, which are rendered without the recorder.
const CONNECT_SECONDS: (&str, &str) = (
    "lvs_server_connect_seconds",
    "How long this director's successful attempts to connect to a server took.",
);
const LATENESS_SECONDS: (&str, &str) =
    ("lvs_vrrp_lateness_seconds", "How late the timers of the VRRP election fire.");

/// Renders the metrics of this moment. Each call starts with an empty recorder, so that a service or
/// server that was removed leaves no time series behind.
pub(super) fn render(reader: &StatusReader) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let director = reader.read_director();
    let mut connect_times = Vec::new();
    metrics::with_local_recorder(&recorder, || {
        crate::metrics::describe();
        describe_all(METRICS);
        record_director(&director, reader);
        for service in reader.registry().services().iter() {
            record_service(reader, service, &mut connect_times);
        }
        if let Some(statistics) = reader.packet_statistics() {
            record_packet(&statistics);
        }
        if let Some(announce) = &director.announce {
            record_announce(announce);
        }
        if let Some(vrrp) = &director.vrrp {
            record_vrrp(vrrp);
        }
    });
    let mut text = handle.render();
    let (name, help) = CONNECT_SECONDS;
    render_histogram(&mut text, name, help, &connect_times);
    if let Some(vrrp) = director.vrrp {
        let (name, help) = LATENESS_SECONDS;
        render_histogram(&mut text, name, help, &[(Vec::new(), vrrp.lateness)]);
    }
    #[cfg(target_os = "linux")]
    render_process(&mut text);
    text
}

fn record_announce(status: &AnnounceStatus) {
    for address in &status.addresses {
        let label = address.address.to_string();
        for state in AnnouncementState::ALL {
            let labels = [("address", label.clone()), ("state", state.name().to_owned())];
            gauge!("lvs_announce_state", &labels).set(gauge_of_bool(address.state == state));
        }
        let labels = [("address", label)];
        if let Some(metric) = address.metric {
            gauge!("lvs_announce_metric", &labels).set(f64::from(metric));
        }
        counter!("lvs_announce_changes_total", &labels).absolute(address.changes);
        counter!("lvs_announce_restored_total", &labels).absolute(address.restored);
        gauge!("lvs_announce_failed", &labels).set(gauge_of_bool(address.failure.is_some()));
    }
}

fn gauge_of_bool(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn record_director(status: &DirectorStatus, reader: &StatusReader) {
    gauge!("lvs_build_info", "version" => status.version).set(1.0);
    gauge!("lvs_uptime_seconds").set(status.uptime_ms as f64 / 1e3);
    gauge!("lvs_active").set(gauge_of_bool(status.active));
    for (task, restarts) in &status.task_restarts {
        counter!("lvs_task_restarts_total", "task" => *task).absolute(*restarts);
    }
    counter!("lvs_log_dropped_lines_total").absolute(status.dropped_log_lines);
    record_descriptors();
    let checks = reader.registry().monitor_counters();
    counter!("lvs_checks_total").absolute(checks.checks_started);
    counter!("lvs_checks_failed_total").absolute(checks.backend_failures);
    counter!("lvs_checks_not_run_total").absolute(checks.local_failures);
    counter!("lvs_checks_late_total").absolute(checks.late_checks);
    gauge!("lvs_checks_in_flight").set(checks.in_flight as f64);
    let reloads = reader.reload_counts();
    for (result, times) in
        [("applied", reloads.applied), ("partial", reloads.partial), ("refused", reloads.refused)]
    {
        counter!("lvs_reloads_total", "result" => result).absolute(times);
    }
    if let Some((at, is_complete)) = reloads.last {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge!("lvs_last_reload_timestamp_seconds").set(since_epoch.as_secs_f64());
        gauge!("lvs_last_reload_successful").set(gauge_of_bool(is_complete));
    }
    for failed in &status.failed_parts {
        gauge!("lvs_reload_failed", "part" => failed.part.clone()).set(1.0);
    }
    if let Some(sync) = &status.sync {
        gauge!("lvs_sync_in_sync").set(gauge_of_bool(sync.followers > 0 || sync.in_sync));
        gauge!("lvs_sync_different_tables").set(sync.different_tables.len() as f64);
        for (fate, flows) in [
            ("sent", sync.flows_sent),
            ("restored", sync.flows_restored),
            ("unknown", sync.flows_unknown),
        ] {
            counter!("lvs_sync_flows_total", "fate" => fate).absolute(flows);
        }
    }
}

fn record_service(
    reader: &StatusReader,
    service: &VirtualService,
    connect_times: &mut Vec<HistogramSeries>,
) {
    let name = &*service.name;
    // A service that has no servers because it needs none would be reported as down.
    if !service.only_routes() {
        record_set(name, service.balancer.backend_set());
    }
    if let Some(watch) = service.health_watch() {
        record_checks(name, &watch);
    }
    let (totals, mut counters) = service.counters_since(CountedSince::Start);
    counters.totals = totals;
    let snapshot = service.balancer.snapshot();
    let mut changes = reader.registry().state_changes().of_service(name);
    for member in snapshot.members().iter() {
        let id = member.id();
        // A server that has got no connection yet has counters too.
        let server = counters.servers.entry(id.to_string()).or_default();
        let labels = vec![("service", name.to_owned()), ("server", id.to_string())];
        connect_times.push((labels, std::mem::take(&mut server.connect_time)));
        let changes = changes.remove(id).unwrap_or_default();
        let (service, server) = (name.to_owned(), id.to_string());
        counter!("lvs_server_state_changes_total", "service" => service, "server" => server)
            .absolute(changes);
    }
    counters.record(name);
    let show = |metric: &'static str, value: usize| {
        gauge!(metric, "service" => name.to_owned()).set(value as f64);
    };
    // The kernel has no such limit.
    if service.engine() == EngineKind::Proxy {
        show("lvs_service_max_connections", service.listener_limit());
    }
    // A whole number of 53 bits is exact as an `f64`.
    let fingerprint = service.balancer.fingerprint().number() >> (u64::BITS - f64::MANTISSA_DIGITS);
    gauge!("lvs_service_fingerprint", "service" => name.to_owned()).set(fingerprint as f64);
    show("lvs_service_persistent_clients", service.persistence().map_or(0, |table| table.len()));
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
    gauge!("lvs_vrrp_lateness_max_seconds").set(status.lateness.max().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The dashboard and the alerts use metrics that exist, and every metric has a HELP text and a value.
    #[test]
    fn every_metric_in_use_is_described() {
        let descriptions = METRICS.iter().chain(&crate::metrics::METRICS);
        let mut known: Vec<_> =
            descriptions.map(|description| description.name.to_owned()).collect();
        for (name, _) in [CONNECT_SECONDS, LATENESS_SECONDS] {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        }
        for text in [
            include_str!("../../contrib/grafana-dashboard.json"),
            include_str!("../../contrib/prometheus-alerts.yml"),
        ] {
            let names = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
            let names: Vec<_> = names.filter(|word| word.starts_with("lvs_")).collect();
            assert!(names.len() > 5);
            for name in names {
                assert!(known.iter().any(|known| known == name), "{name}");
            }
        }
        let own = [
            include_str!("metrics.rs"),
            include_str!("../metrics/servers.rs"),
            include_str!("../metrics/health_checks.rs"),
            include_str!("../metrics/traffic.rs"),
        ];
        let sources = own.concat();
        for description in METRICS.iter().chain(&crate::metrics::METRICS) {
            let name = description.name;
            // Those of this file are also in its table.
            let in_table = usize::from(METRICS.iter().any(|metric| metric.name == name));
            assert!(
                sources.matches(&format!("\"{name}\"")).count() > in_table,
                "{name} is described, and never recorded"
            );
        }
    }
}
