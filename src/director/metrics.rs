//! How a director stands, in Prometheus' format.

use metrics::{Label, counter, gauge};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::Director;
use super::status::{Since, Status};
use crate::vrrp::State;

/// Everything, as it is now: each scrape is written anew, and nothing is kept that has gone.
pub(super) fn render(director: &Director) -> String {
    let status = &director.status_since(Since::Start);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || record(status));
    handle.render()
}

fn record(status: &Status) {
    gauge!("lvs_active").set(f64::from(status.active));
    for service in &status.services {
        let labels = vec![Label::new("service", service.name.clone())];
        let count = |name: &'static str, value: u64| counter!(name, labels.clone()).absolute(value);
        count("lvs_service_accepted_total", service.totals.accepted);
        count("lvs_service_refused_total", service.totals.refused);
        count("lvs_service_to_servers_bytes_total", service.totals.bytes_to_servers);
        count("lvs_service_to_clients_bytes_total", service.totals.bytes_to_clients);
        gauge!("lvs_service_connections", labels.clone()).set(service.active as f64);
        for server in &service.servers {
            let mut labels = labels.clone();
            labels.push(Label::new("server", server.address.clone()));
            gauge!("lvs_server_weight", labels.clone()).set(f64::from(server.weight));
            gauge!("lvs_server_connections", labels.clone()).set(f64::from(server.active));
            gauge!("lvs_server_eligible", labels).set(f64::from(server.state == "eligible"));
        }
    }
    let Some(vrrp) = &status.vrrp else { return };
    for router in &vrrp.routers {
        let labels = vec![Label::new("router", router.name.clone())];
        let with = |name: &'static str, value: &str| {
            let mut labels = labels.clone();
            labels.push(Label::new(name, value.to_owned()));
            labels
        };
        for state in [State::Init, State::Backup, State::Master, State::Fault] {
            let labels = with("state", &state.to_string());
            gauge!("lvs_vrrp_state", labels.clone()).set(f64::from(router.state == state));
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
    let lateness = &vrrp.lateness;
    for part in [0.5, 0.99] {
        let late = lateness.quantile(part).unwrap_or_default();
        gauge!("lvs_vrrp_lateness_seconds", "quantile" => part.to_string()).set(late.as_secs_f64());
    }
    gauge!("lvs_vrrp_lateness_max_seconds").set(lateness.max().as_secs_f64());
    counter!("lvs_vrrp_turns_total").absolute(lateness.count());
}
