//! The metrics of the health checks of a set.

use metrics::counter;

use crate::health::WatchHandle;

/// Records the results of the checks of a watched set: see the [table](super#the-metrics). A server's
/// checks of one name are added up.
///
/// Takes the monitor's lock while it copies the counters, as [`WatchHandle::check_counters`] does.
pub fn record_checks(service: &str, watch: &WatchHandle) {
    for counters in watch.check_counters() {
        let count = |name: &'static str, value: u64| {
            let (service, server) = (service.to_owned(), counters.backend.to_string());
            let check = counters.check.clone();
            counter!(name, "service" => service, "server" => server, "check" => check)
                .absolute(value);
        };
        count("lvs_server_checks_total", counters.results);
        count("lvs_server_checks_failed_total", counters.failures);
    }
}
