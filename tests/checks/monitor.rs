//! What a monitor says about checks that cannot run: without an address, without a driver, by a panic.

use std::net::SocketAddr;
use std::time::Duration;

use lvs::backend::{BackendState, Health};
use lvs::health::{
    Check, CheckContext, CheckFailure, CheckReport, HealthEventKind, HealthPlan, Monitor, TcpCheck,
    TimedCheck,
};
use lvs::{BackendSet, RuntimeError, Spec};
use tokio::runtime::Builder;

fn tcp_plan() -> HealthPlan {
    HealthPlan::new("web").check(TimedCheck::new(TcpCheck::new()))
}

#[test]
fn a_set_of_which_nothing_can_be_checked_is_refused_by_name() {
    let (monitor, set) = (Monitor::new(), BackendSet::new());
    monitor.watch(&set, tcp_plan()).expect("an empty set may get members with addresses");
    // As a program that balances over clients does: the target is no address, and none is set.
    for name in ["b", "a"] {
        set.insert(Spec::new(name, "a client")).expect("a new name");
    }
    let error = monitor.watch(&set, tcp_plan()).expect_err("nothing would be checked");
    assert_eq!(
        error.to_string(),
        "service web: the tcp check can check no backend: a and all others have no address or no \
         port, set them by Spec::address and TimedCheck::port"
    );
    monitor.watch(&set, HealthPlan::new("web")).expect("a plan without checks needs no address");
    let address: SocketAddr = ([127, 0, 0, 1], 0).into();
    set.insert(Spec::new("c", "a client").address(address)).expect("a new name");
    monitor.watch(&set, tcp_plan()).expect_err("the address has no port");
    let plan = HealthPlan::new("web").check(TimedCheck::new(TcpCheck::new()).port(80));
    monitor.watch(&set, plan).expect("the check has a port");
}

#[derive(Debug)]
struct PanickingCheck;

impl Check for PanickingCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        panic!("no answer is expected of {}", context.id());
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_only_panics_is_reported_and_leaves_no_backend_up() {
    let (monitor, set) = (Monitor::new(), BackendSet::new());
    let address: SocketAddr = ([127, 0, 0, 1], 9).into();
    set.insert(Spec::new("a", ()).address(address)).expect("a new name");
    let check = TimedCheck::new(PanickingCheck).fall(3);
    monitor.watch(&set, HealthPlan::new("web").check(check)).expect("the plan is valid");
    let mut events = monitor.events();
    let run = tokio::spawn(monitor.run());
    let event = events.next().await.expect("the monitor is there").expect("no event is missed");
    assert_eq!(
        event.to_string(),
        "service web: server a could not be checked: PanickingCheck check: the check panicked: no \
         answer is expected of a"
    );
    assert!(matches!(event.kind, HealthEventKind::LocalFailure { .. }) && event.is_alert());
    let status = &set.statuses()[0];
    assert_eq!((status.health, status.state), (Health::Up, BackendState::Eligible));
    let event = events.next().await.expect("the monitor is there").expect("no event is missed");
    let problem = "cannot be checked: PanickingCheck check: the check panicked: no answer is expected \
                   of a";
    assert_eq!(
        event.to_string(),
        format!("service web: server a is down (was eligible): {problem}")
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = &set.statuses()[0];
    assert_eq!((status.health, status.state), (Health::Down, BackendState::Down));
    assert_eq!(status.reason.as_deref(), Some(problem));
    assert!(monitor.counters().local_failures > 10);
    assert!(events.try_next().is_none(), "the same reason is reported once");
    monitor.shutdown();
    run.await.expect("no panic").expect("the runtime has all that is needed");
}

/// Passes, and never ends.
#[derive(Debug)]
struct PassedCheck;

impl Check for PassedCheck {
    async fn check(&self, context: &CheckContext) -> Result<CheckReport, CheckFailure> {
        context.set_report(CheckReport::up().with_warning("it is late"));
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_stands_when_the_timeout_passes() {
    let (monitor, set) = (Monitor::new(), BackendSet::new());
    let address: SocketAddr = ([127, 0, 0, 1], 9).into();
    set.insert(Spec::new("a", ()).address(address).health(Health::Down)).expect("a new name");
    let plan = HealthPlan::new("web").check(TimedCheck::new(PassedCheck));
    let mut events = monitor.events();
    monitor.watch(&set, plan).expect("the plan is valid");
    let run = tokio::spawn(monitor.run());
    let mut lines = Vec::new();
    while lines.len() < 2 {
        let event = events.next().await.expect("the monitor is there").expect("no event is missed");
        lines.push(event.to_string());
    }
    lines.sort();
    assert_eq!(
        lines,
        [
            "service web: server a is eligible (was down): PassedCheck check passed",
            "service web: server a: a check warns: it is late",
        ]
    );
    monitor.shutdown();
    run.await.expect("no panic").expect("the runtime has all that is needed");
}

#[test]
fn a_runtime_without_io_or_time_is_refused_at_the_start() {
    let (monitor, set) = (Monitor::new(), BackendSet::<SocketAddr>::new());
    set.insert(SocketAddr::from(([127, 0, 0, 1], 9))).expect("a new name");
    monitor.watch(&set, tcp_plan()).expect("the plan is valid");
    let run = |runtime: &mut Builder| {
        runtime.build().expect("a runtime").block_on(async { tokio::spawn(monitor.run()).await })
    };
    let part = "a health monitor";
    let error = run(Builder::new_current_thread().enable_io()).expect("no panic");
    assert_eq!(error, Err(RuntimeError::NoTime { part }));
    let error = run(Builder::new_current_thread().enable_time()).expect("no panic");
    assert_eq!(error, Err(RuntimeError::NoIo { part }));
    assert_eq!((set.statuses()[0].health, monitor.counters().checks_started), (Health::Up, 0));
}
