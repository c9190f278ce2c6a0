//! The metrics of a backend set.

use metrics::gauge;

use crate::backend::{BackendSet, BackendState, Member};

/// Records the state of a set and of its backends: see the [table](super#the-metrics).
///
/// The set may be that of a forwarder, of a tower service, or of the program's own balancer.
pub fn record_set<T>(service: &str, set: &BackendSet<T>) {
    let snapshot = set.snapshot();
    let show = |name: &'static str, value: f64| {
        gauge!(name, "service" => service.to_owned()).set(value);
    };
    let is_eligible = |member: &&Member| member.state() == BackendState::Eligible;
    show("lvs_service_servers", snapshot.members().len() as f64);
    show(
        "lvs_service_eligible_servers",
        snapshot.members().iter().filter(is_eligible).count() as f64,
    );
    show("lvs_service_panic", gauge_of_bool(snapshot.is_panicking()));
    show("lvs_service_quorum", gauge_of_bool(snapshot.has_quorum()));
    for member in snapshot.members().iter() {
        record_member(service, member);
    }
}

fn record_member(service: &str, member: &Member) {
    let (service, server) = (service.to_owned(), member.id().to_string());
    let show = |name: &'static str, value: f64| {
        gauge!(name, "service" => service.clone(), "server" => server.clone()).set(value);
    };
    for state in BackendState::ALL {
        let (service, server) = (service.clone(), server.clone());
        gauge!("lvs_server_state", "service" => service, "server" => server, "state" => state.name())
            .set(gauge_of_bool(member.state() == state));
    }
    show("lvs_server_eligible", gauge_of_bool(member.state() == BackendState::Eligible));
    show("lvs_server_weight", member.weight().into());
    let load = member.load();
    show("lvs_server_connections", f64::from(load.active) + f64::from(load.inactive));
    // A limit of 0 is none.
    let limit = match member.limits().max_connections() {
        0 => f64::INFINITY,
        limit => limit.into(),
    };
    show("lvs_server_max_connections", limit);
}

fn gauge_of_bool(value: bool) -> f64 {
    f64::from(u8::from(value))
}
