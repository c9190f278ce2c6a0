//! Metrics of sets, health checks and forwarders, in the program's own recorder.
//!
//! A program that uses the parts of this crate without a [director](crate::director) records them by
//! these functions into whatever recorder it has installed for the `metrics` crate, under the names
//! that the director's `/metrics` has: one dashboard and the same alerts serve both. The director calls
//! the same functions.
//!
//! Call [`describe`] once, and the others whenever the recorder is read, or every few seconds.
//!
//! # The metrics
//! Labels are `service`, which the caller chooses, `server`, the identifier of the backend, and what is
//! named below; no client can add a time series. A recorder keeps what it was told: the gauges of a
//! backend that was removed stay as they were, unless the recorder forgets what is idle
//! (`PrometheusBuilder::idle_timeout`).
//!
//! | metric | labels | from |
//! |---|---|---|
//! | `lvs_service_servers`, `lvs_service_eligible_servers` | | [`record_set`] |
//! | `lvs_service_panic`, `lvs_service_quorum` | | [`record_set`] |
//! | `lvs_server_state` | `state` | [`record_set`] |
//! | `lvs_server_eligible`, `lvs_server_weight` | | [`record_set`] |
//! | `lvs_server_connections`, `lvs_server_max_connections` | | [`record_set`] |
//! | `lvs_server_checks_total`, `lvs_server_checks_failed_total` | `check` | [`record_checks`] |
//! | `lvs_service_accepted_total`, `lvs_service_refused_total` | | [`ServiceCounters::record`] |
//! | `lvs_service_refused_by_reason_total`, `lvs_service_ended_total` | `reason` | [`ServiceCounters::record`] |
//! | `lvs_service_sorry_total`, `lvs_service_limit_waits_total` | | [`ServiceCounters::record`] |
//! | `lvs_service_failed_accepts_total` | | [`ServiceCounters::record`] |
//! | `lvs_service_to_servers_bytes_total`, `lvs_service_to_clients_bytes_total` | | [`ServiceCounters::record`] |
//! | `lvs_service_connections` | | [`ServiceCounters::record`] |
//! | `lvs_server_connections_total`, `lvs_server_failed_connections_total` | | [`ServiceCounters::record`] |
//! | `lvs_server_in_bytes_total`, `lvs_server_out_bytes_total` | | [`ServiceCounters::record`] |
//! | `lvs_client_descriptors`, `lvs_max_client_descriptors` | no `service` | [`record_descriptors`] |
//!
//! Connect times are a histogram that forwarders keep, which the facade has no way to pass on:
//! [`ServerCounters::connect_time`] has it, and
//! [`cumulative_buckets`](crate::DurationHistogram::cumulative_buckets) its buckets.
//!
//! # Cost
//! A call looks up each metric in the recorder, with labels that are allocated: some microseconds for
//! each backend. Nothing is added to the path of connections.
//!
//! # Examples
//! ```
//! use std::net::SocketAddr;
//!
//! use lvs::{BackendSet, metrics};
//! use metrics_exporter_prometheus::PrometheusBuilder;
//!
//! let set = BackendSet::<SocketAddr>::new();
//! set.insert("10.0.0.1:80".parse::<SocketAddr>()?)?;
//!
//! // A program installs its recorder with `PrometheusBuilder::new().install_recorder()`.
//! let recorder = PrometheusBuilder::new().build_recorder();
//! let handle = recorder.handle();
//! ::metrics::with_local_recorder(&recorder, || {
//!     metrics::describe();
//!     metrics::record_set("web", &set);
//! });
//! let text = handle.render();
//! assert!(text.contains("lvs_server_weight{service=\"web\",server=\"10.0.0.1:80\"} 1"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod description;
#[cfg(feature = "health")]
mod health_checks;
mod servers;
#[cfg(feature = "forward")]
mod traffic;

#[cfg(all(test, feature = "director"))]
pub(crate) use self::description::METRICS;
pub use self::description::describe;
#[cfg(feature = "director")]
pub(crate) use self::description::{MetricDescription, describe_all};
#[cfg(feature = "health")]
pub use self::health_checks::record_checks;
pub use self::servers::record_set;
#[cfg(feature = "forward")]
pub use self::traffic::{
    ServerCounters, ServerTotals, ServiceCounters, ServiceTotals, record_descriptors,
};
