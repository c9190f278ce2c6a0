//! Values as serde sees them: names as in metrics, and what a program stores comes back equal.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use lvs::backend::{AgentWeight, BackendState, FailMode, OutlierState, Quorum, TrafficEstimate};
use lvs::balancer::{AffinityPolicy, SavedTemplate};
use lvs::forward::{
    ConnectionPhase, FlowEndCounters, QueueCounters, TcpCounters, Termination, TerminationReason,
    UdpCounters,
};
use lvs::health::{HealthPlan, Monitor, MonitorCounters};
use lvs::vrrp::{MacAddress, PreemptMode, TrackEffect, VrrpVersion};
use lvs::{BackendSet, DurationHistogram, Health};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn value(value: impl Serialize) -> Value {
    serde_json::to_value(value).expect("JSON")
}

#[track_caller]
fn round_trip<T: Debug + DeserializeOwned + PartialEq + Serialize>(original: T, text: Value) {
    assert_eq!(value(&original), text);
    assert_eq!(serde_json::from_value::<T>(text).expect("valid"), original);
}

#[test]
fn what_a_program_stores_comes_back_equal() {
    round_trip(FailMode::Closed, json!("closed"));
    round_trip(FailMode::PanicBelow(50), json!({ "panic_below": 50 }));
    round_trip(
        Quorum::new(3).with_hysteresis(1),
        json!({ "weight": 3, "hysteresis": 1, "advisory": false }),
    );
    round_trip(TrafficEstimate::default(), json!({ "latency": null, "failure_rate": 0.0 }));
    round_trip(AgentWeight::Percent(50), json!({ "percent": 50 }));
    round_trip(BackendState::Eligible, json!("eligible"));
    round_trip(OutlierState::OnTrial, json!("on_trial"));
    round_trip(Health::Down, json!("down"));
    round_trip(TrackEffect::Minus(9), json!({ "minus": 9 }));
    round_trip(VrrpVersion::V3, json!("v3"));
    round_trip(AffinityPolicy::Expire, json!("expire"));
    round_trip(PreemptMode::Never, json!("never"));
    let template = SavedTemplate {
        network: [192, 0, 2, 7].into(),
        backend: "a".into(),
        remaining: Duration::from_secs(9),
    };
    round_trip(template.clone(), value(template));
}

#[test]
fn counters_records_and_events_have_the_names_of_their_fields() {
    assert_eq!(value(TcpCounters::default())["refused"]["client_limit"], 0);
    assert_eq!(value(UdpCounters::default())["to_clients"]["bytes"], 0);
    assert_eq!(value(FlowEndCounters::default())["idle"], 0);
    assert_eq!(value(QueueCounters::default())["waiting"], 0);
    assert_eq!(value(MonitorCounters::default())["checks_started"], 0);
    let end = Termination::new(TerminationReason::ClientTimeout, ConnectionPhase::Data);
    assert_eq!(value(end), json!({ "reason": "client_timeout", "phase": "data" }));
    assert_eq!(value(MacAddress([0, 0, 94, 0, 1, 51])), "00:00:5e:00:01:33");
    let none = json!({ "count": 0, "mean_us": null, "p50_us": null, "p99_us": null, "max_us": 0 });
    assert_eq!(value(DurationHistogram::default()), none);

    let (set, monitor) = (BackendSet::<SocketAddr>::new(), Monitor::new());
    set.insert(SocketAddr::from(([10, 0, 0, 1], 80))).expect("a valid server");
    monitor.watch(&set, HealthPlan::new("web")).expect("a valid plan");
    let mut events = monitor.events();
    set.set_health(&"10.0.0.1:80".into(), Health::Down).expect("it is there");
    let event = value(events.blocking_next().expect("an event").expect("few events"));
    assert_eq!(event["service"], "web");
    assert_eq!(
        event["kind"],
        json!({ "state": { "id": "10.0.0.1:80", "from": "eligible", "to": "down", "reason": null } })
    );
}
