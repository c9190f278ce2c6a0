//! Backends that fail requests are ejected, tried and taken back.

use super::*;

/// Sends requests one after the other; those to some servers fail. Returns the number of failures.
fn traffic(balancer: &Balancer<SocketAddr>, requests: u32, fails: impl Fn(u16) -> bool) -> u32 {
    let serve = |_| {
        let lease = balancer.pick(&crate::Flow::new()).expect("a backend is eligible");
        let failed = fails(lease.target().port() - 9000);
        let outcome = if failed { Outcome::AppError } else { Outcome::Ok };
        lease.complete(outcome);
        u32::from(failed)
    };
    (0..requests).map(serve).sum()
}

#[test]
fn ejected_backend_gets_a_trial_and_returns_with_a_ramp() {
    let mut bed = MonitorTestBed::new();
    let plan = HealthPlan::new("test").ejection(EjectionPolicy::new());
    let first = bed.watch_with_plan(1..=5, plan.clone());
    let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
        .expect("round robin accepts any set");
    bed.run(100 * MS, always_up);
    assert_eq!(traffic(&balancer, 25, |n| n == 1), 5, "the fifth failure notifies the monitor");
    assert_eq!(bed.state(0, 1), BackendState::Eligible, "the monitor has not run yet");
    bed.run(MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Ejected);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 0);
    let status = |bed: &MonitorTestBed| {
        bed.sets[0]
            .statuses()
            .into_iter()
            .find(|status| status.id == id(1))
            .expect("member of the set")
    };
    let reason = status(&bed).reason.expect("ejected backends have a reason");
    assert_eq!(&*reason, "ejected for 30.0s: 5 failures in a row");

    // The trial fails: one request, and another ejection.
    bed.run(29_998 * MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Ejected);
    bed.run(2 * MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 1);
    bed.run(MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Ejected);

    // Another process restores the rest of the ejection.
    let saved = bed.core.export(first, bed.now + 10_000 * MS);
    let text = serde_json::to_string(&saved).expect("state serializes");
    let saved: SavedHealth = serde_json::from_str(&text).expect("state deserializes");
    let mut bed = MonitorTestBed::new();
    let second = bed.watch_with_plan(1..=5, plan);
    let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
        .expect("round robin accepts any set");
    bed.core.restore(second, &saved, bed.now).expect("no scheduler refuses");
    bed.run(MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Ejected);
    // Two ejections in a row make 60 s, less 30 s for a healthy sweep in between.
    bed.run(49_998 * MS, always_up);
    let before = bed.state(0, 1);
    bed.run(2 * MS, always_up);
    assert_eq!(bed.state(0, 1), BackendState::Eligible, "2 ms before: {before}");

    // The trial passes, and the share of the backend grows.
    assert_eq!(traffic(&balancer, 100, |_| false), 0);
    bed.run(MS, always_up);
    assert_eq!(status(&bed).slow_start_percent, 10);
    bed.run(5000 * MS, always_up);
    assert_eq!(status(&bed).slow_start_percent, 50);
    bed.run(5000 * MS, always_up);
    assert_eq!(status(&bed).slow_start_percent, 100);
}

#[test]
fn a_connection_that_is_made_ends_an_ejection_for_failed_connects_and_no_other() {
    for (outcome, is_proof) in
        [(Outcome::ConnectError, true), (Outcome::Timeout, true), (Outcome::AppError, false)]
    {
        let mut bed = MonitorTestBed::new();
        let policy = EjectionPolicy::builder().ramp(None).build().expect("the policy is valid");
        bed.watch_with_plan(1..=5, HealthPlan::new("test").ejection(policy));
        let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
            .expect("round robin accepts any set");
        bed.run(100 * MS, always_up);
        let lease_of_first = || loop {
            let lease = balancer.pick(&crate::Flow::new()).expect("a backend is eligible");
            if lease.id() == &id(1) {
                break lease;
            }
            lease.complete(Outcome::Ok);
        };
        (0..5).for_each(|_| lease_of_first().complete(outcome));
        bed.run(MS, always_up);
        assert_eq!(bed.state(0, 1), BackendState::Ejected, "{outcome:?}");
        // A trial that fails does not change what is to be proved.
        for _ in 0..2 {
            while bed.state(0, 1) == BackendState::Ejected {
                bed.run(1000 * MS, always_up);
            }
            let lease = lease_of_first();
            bed.run(MS, always_up);
            assert_eq!(traffic(&balancer, 100, |n| n == 1), 0, "the trial has its one lease");
            lease.complete(outcome);
            bed.run(MS, always_up);
            assert_eq!(bed.state(0, 1), BackendState::Ejected);
        }
        while bed.state(0, 1) == BackendState::Ejected {
            bed.run(1000 * MS, always_up);
        }
        // The connection goes on for hours.
        let lease = lease_of_first();
        lease.report_connected();
        bed.run(MS, always_up);
        let expected = if is_proof { 20 } else { 0 };
        assert_eq!(traffic(&balancer, 100, |n| n == 1), expected, "{outcome:?}");
        drop(lease);
    }
}

#[test]
fn a_passed_check_ends_an_ejection_where_the_policy_says_so() {
    for ends in [true, false] {
        let mut bed = MonitorTestBed::new();
        let policy = EjectionPolicy::builder().ramp(None).check_ends_ejection(ends).build();
        let plan = HealthPlan::new("test").ejection(policy.expect("the policy is valid"));
        bed.watch_with_plan(1..=5, plan.check(checks()));
        let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
            .expect("round robin accepts any set");
        bed.run(1500 * MS, always_up);
        traffic(&balancer, 25, |n| n == 1);
        bed.run(MS, always_up);
        assert_eq!(bed.state(0, 1), BackendState::Ejected);
        bed.run(1000 * MS, always_up);
        let expected = if ends { BackendState::Eligible } else { BackendState::Ejected };
        assert_eq!(bed.state(0, 1), expected);
    }
}

#[test]
fn trial_longer_than_max_trial_time_has_passed() {
    let mut bed = MonitorTestBed::new();
    let policy = EjectionPolicy::builder().ramp(None).build().expect("the policy is valid");
    bed.watch_with_plan(1..=5, HealthPlan::new("test").ejection(policy));
    let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
        .expect("round robin accepts any set");
    bed.run(100 * MS, always_up);
    traffic(&balancer, 25, |n| n == 1);
    bed.run(30_001 * MS, always_up);
    let lease = loop {
        let lease = balancer.pick(&crate::Flow::new()).expect("a backend is eligible");
        if lease.id() == &id(1) {
            break lease;
        }
    };
    bed.run(9_999 * MS, always_up);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 0, "the trial has its one lease");
    bed.run(2 * MS, always_up);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 20);
    drop(lease);
}
