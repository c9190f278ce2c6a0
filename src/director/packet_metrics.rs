//! The metrics of the packet engine.

use metrics::counter;

use crate::metrics::{MetricDescription, describe_all};
use crate::packet::PacketStatistics;

/// A metric for each counter of the engine, under its name.
const METRICS: [MetricDescription; 19] = [
    MetricDescription::counter(
        "lvs_packet_upcalls_total",
        "New flows of the packet engine that the scheduler was asked for.",
    ),
    MetricDescription::counter(
        "lvs_packet_keyed_decisions_total",
        "New flows of the packet engine that the scheduler's own table decided in the kernel.",
    ),
    MetricDescription::counter(
        "lvs_packet_table_decisions_total",
        "New flows of the packet engine that a table in the kernel decided in place of the scheduler.",
    ),
    MetricDescription::counter(
        "lvs_packet_refused_at_limit_total",
        "New flows of the packet engine that were refused because the scheduler could not be asked and a \
         server has a connection limit.",
    ),
    MetricDescription::counter(
        "lvs_packet_refused_without_server_total",
        "New flows of the packet engine that were refused because no server could take them.",
    ),
    MetricDescription::counter(
        "lvs_packet_table_full_total",
        "Flows of the packet engine that could not be stored because the flow table was full.",
    ),
    MetricDescription::counter(
        "lvs_packet_events_lost_total",
        "Events of the packet engine that were lost because the director did not read them in time.",
    ),
    MetricDescription::counter(
        "lvs_packet_fragments_total",
        "IP fragments for a virtual address of the packet engine that came before the first fragment of their \
         packet, or have no ports, which it leaves to this machine.",
    ),
    MetricDescription::counter(
        "lvs_packet_with_options_total",
        "Packets with IP options for a virtual address of the packet engine, which it leaves to this machine.",
    ),
    MetricDescription::counter(
        "lvs_packet_malformed_total",
        "Packets for a virtual address of the packet engine whose headers are not valid.",
    ),
    MetricDescription::counter(
        "lvs_packet_without_flow_total",
        "TCP packets for a service of the packet engine that begin no connection and belong to none.",
    ),
    MetricDescription::counter(
        "lvs_packet_hop_limit_total",
        "Packets that the packet engine dropped because their hop limit (TTL) was used up.",
    ),
    MetricDescription::counter(
        "lvs_packet_too_long_total",
        "Packets that the packet engine dropped because they were longer than the MTU of the device to the other \
         side, less the headers of a tunnel.",
    ),
    MetricDescription::counter(
        "lvs_packet_rewrite_failed_total",
        "Packets that the packet engine dropped because it could not rewrite their addresses.",
    ),
    MetricDescription::counter(
        "lvs_packet_icmp_errors_total",
        "ICMP errors that the packet engine passed to the other side of a flow.",
    ),
    MetricDescription::counter(
        "lvs_packet_unassured_forgotten_total",
        "Flows that the packet engine has forgotten for newer ones, because no client was known to be there.",
    ),
    MetricDescription::counter(
        "lvs_packet_elsewhere_total",
        "Packets of no flow that were dropped because another machine has the virtual address, or had it just now.",
    ),
    MetricDescription::counter(
        "lvs_packet_at_xdp_total",
        "Packets that the packet engine carried at XDP.",
    ),
    MetricDescription::counter(
        "lvs_packet_flows_forgotten_total",
        "Flows that the packet engine's table has forgotten because it was full.",
    ),
];

/// Records the counters, each by the name that it has in the engine.
pub(super) fn record_packet(statistics: &PacketStatistics) {
    describe_all(METRICS);
    for (name, value) in PacketStatistics::NAMES.iter().zip(statistics.values()) {
        counter!(metric_name(name)).absolute(value);
    }
}

fn metric_name(counter: &str) -> String {
    format!("lvs_packet_{counter}_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_engine_is_described() {
        let described = METRICS.map(|metric| metric.name);
        let counted: Vec<_> =
            PacketStatistics::NAMES.iter().map(|name| metric_name(name)).collect();
        assert_eq!(described.as_slice(), counted);
    }
}
