//! The metrics of a director, and of a program that has none.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use lvs::director::ServiceState::{Down, Up};
use lvs::director::{DirectorConfig, ServerChange, ServiceConfig, VrrpConfig};
use lvs::forward::Forwarder;
use lvs::health::{HealthPlan, Monitor, TcpCheck, TimedCheck};
use lvs::metrics::{ServiceCounters, describe, record_checks, record_descriptors, record_set};
use lvs::scheduler::RoundRobin;
use lvs::{BackendSet, Balancer, Limits, Spec};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::admin::{send, with_admin};
use crate::drop::until;
use crate::skipped::report_skipped;
use crate::{ANY, ask, config, listens, server};

/// Runs `promtool check ...`, which must find nothing, in the text or in a file of its arguments.
fn promtool(arguments: &[&str], text: &str) {
    let mut command = Command::new("promtool");
    command.arg("check").args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return report_skipped("promtool is not installed");
    };
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("promtool reads its input");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let found = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{found}\n{text}");
}

/// A service whose `server_names` lead to others has no servers, and is not down for that.
#[tokio::test]
async fn a_service_that_only_routes_is_up() {
    let (up, gone) = (server(b'a').await, "\"*.example\" = \"gone\"");
    let text = format!(
        "{}tcp = {{ server_names = {{ {gone} }}, without_tls = \"back\" }}\n[[service]]\nname = \"gone\"\n{}",
        config(ANY, &[]),
        config(ANY, &[up]).replace("web", "back"),
    );
    let (director, admin) = with_admin("", &text).await;
    let states = || -> Vec<_> {
        let status = director.status();
        status.services.iter().map(|service| (service.name.clone(), service.state)).collect()
    };
    let expected = [("web", Up), ("gone", Down), ("back", Up)];
    assert_eq!(states(), expected.map(|(name, state)| (name.to_owned(), state)));
    let mut client = TcpStream::connect(listens(&director)).await.expect("it listens");
    client.write_all(b"no TLS").await.expect("the stream is open");
    assert_eq!(client.read_u8().await.expect("served"), b'a');
    let (_, overview) = send(admin, "GET /api/v1/overview", "").await;
    assert_eq!(overview.matches("\"state\":\"up\"").count(), 2, "{overview}");
    let (_, metrics) = send(admin, "GET /metrics", "").await;
    // What contrib/prometheus-alerts.yml takes for a service that is down.
    let none_eligible = |name| format!("lvs_service_eligible_servers{{service=\"{name}\"}} 0");
    assert!(!metrics.contains(&none_eligible("web")), "{metrics}");
    assert!(metrics.contains(&none_eligible("gone")), "{metrics}");
    director.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_director_has_metrics_of_its_servers_reloads_and_process() {
    let up = server(b'a').await;
    let closed = TcpListener::bind(ANY).await.expect("loopback").local_addr().expect("bound");
    let text = config(ANY, &[up, closed]).replace(
        "scheduler",
        "health = { type = \"tcp\", interval = \"20ms\", rise = 1, fall = 1 }\nscheduler",
    );
    let text = format!("{text}max_connections = 7\n");
    let (director, admin) = with_admin("", &text).await;
    let is_down = async || director.status().services[0].servers[1].state == "down";
    until("the check has failed", is_down).await;
    assert_eq!(ask(listens(&director)).await.expect("served"), b'a');
    // The client sees the end of its connection before the director has counted it.
    let ended = "lvs_service_ended_total{service=\"web\",reason=\"finished\"} 1";
    let is_counted = async || send(admin, "GET /metrics", "").await.1.contains(ended);
    until("the end of the connection is counted", is_counted).await;
    let drain = ServerChange::new().with_state(lvs::director::BackendAdminState::Draining);
    director.change_server("web", &up.to_string(), drain).expect("it is there");
    let router = VrrpConfig::builder("no-such-link", 1)
        .addresses(["10.88.0.100/24".parse().expect("an address")]);
    let refused = DirectorConfig::builder().service(ServiceConfig::tcp("web").listen(ANY));
    let refused = refused.vrrp(router).build().expect("valid");
    director.reload(refused).await.expect_err("there is no such interface");

    let (_, metrics) = send(admin, "GET /metrics", "").await;
    let labels = |server: SocketAddr| format!("service=\"web\",server=\"{server}\"");
    let (up, closed) = (labels(up), labels(closed));
    for line in [
        format!("lvs_server_state{{{closed},state=\"down\"}} 1"),
        format!("lvs_server_state{{{closed},state=\"eligible\"}} 0"),
        format!("lvs_server_state{{{up},state=\"draining\"}} 1"),
        format!("lvs_server_state_changes_total{{{up}}} 1"),
        format!("lvs_server_state_changes_total{{{closed}}} 1"),
        format!("lvs_server_max_connections{{{up}}} inf"),
        format!("lvs_server_max_connections{{{closed}}} 7"),
        format!("lvs_server_checks_failed_total{{{up},check=\"tcp\"}} 0"),
        format!("lvs_server_connections_total{{{up}}} 1"),
        format!("lvs_server_connect_seconds_count{{{up}}} 1"),
        format!("lvs_server_connect_seconds_bucket{{{up},le=\"+Inf\"}} 1"),
        "lvs_service_max_connections{service=\"web\"} ".to_owned(),
        "lvs_reloads_total{result=\"applied\"} 1".to_owned(),
        "lvs_reloads_total{result=\"refused\"} 1".to_owned(),
        "lvs_last_reload_successful 0".to_owned(),
        "lvs_last_reload_timestamp_seconds 1".to_owned(),
        "lvs_service_failed_accepts_total{service=\"web\"} 0".to_owned(),
        "lvs_client_descriptors ".to_owned(),
        "lvs_max_client_descriptors ".to_owned(),
        "process_open_fds ".to_owned(),
        "process_resident_memory_bytes ".to_owned(),
        "process_start_time_seconds 1".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    let failures = format!("lvs_server_checks_failed_total{{{closed},check=\"tcp\"}} ");
    let failures = metrics.split_once(&failures).expect("counted").1;
    assert!(!failures.starts_with('0'), "{metrics}");
    promtool(&["metrics"], &metrics);
    director.stop(Duration::ZERO).await;
}

#[test]
fn the_alerts_are_rules_of_prometheus() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus-alerts.yml");
    promtool(&["rules", path], "");
}

#[tokio::test]
async fn a_program_without_a_director_has_the_same_metrics() {
    let (set, monitor) = (BackendSet::new(), Monitor::new());
    let backend = server(b'a').await;
    set.insert(Spec::from(backend).weight(3).limits(Limits::new(9))).expect("a valid server");
    let plan = HealthPlan::new("web").check(TimedCheck::new(TcpCheck::new()));
    let watch = monitor.watch(&set, plan).expect("a valid plan");
    tokio::spawn(monitor.run());
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("a valid set");
    let forwarder = Forwarder::bind(ANY, balancer).expect("a free port");
    let handle = forwarder.handle();
    tokio::spawn(forwarder.run());
    let listen = handle.local_addr().expect("an address");
    assert_eq!(ask(listen).await.expect("served"), b'a');
    let is_checked = async || watch.check_counters().iter().any(|counters| counters.results > 0);
    until("the check has run", is_checked).await;
    let held = TcpStream::connect(listen).await.expect("served");
    let is_counted = async || {
        let counters = handle.counters();
        (counters.accepted, counters.finished) == (2, 1)
    };
    until("both connections and the end of one are counted", is_counted).await;

    let recorder = PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        record_set("web", &set);
        record_checks("web", &watch);
        let mut counters = ServiceCounters::default();
        counters.add_tcp(&handle);
        counters.record("web");
        record_descriptors();
    });
    let text = rendered.render();
    let labels = format!("service=\"web\",server=\"{backend}\"");
    for line in [
        "lvs_service_eligible_servers{service=\"web\"} 1".to_owned(),
        "lvs_service_accepted_total{service=\"web\"} 2".to_owned(),
        "lvs_service_ended_total{service=\"web\",reason=\"finished\"} 1".to_owned(),
        "lvs_client_descriptors ".to_owned(),
        format!("lvs_server_weight{{{labels}}} 3"),
        format!("lvs_server_max_connections{{{labels}}} 9"),
        format!("lvs_server_state{{{labels},state=\"eligible\"}} 1"),
        format!("lvs_server_checks_failed_total{{{labels},check=\"tcp\"}} 0"),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    promtool(&["metrics"], &text);
    drop(held);
    handle.shutdown(Duration::ZERO);
}
