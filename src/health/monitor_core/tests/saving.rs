//! What a core knows is exported, and restored in another.

use super::*;

#[test]
fn export_and_restore_keep_health_slow_starts_and_counts() {
    let only_fails = |bad: u16| {
        move |_: Instant, at: SocketAddr| {
            (MS, if at == address(bad) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
        }
    };
    let mut bed = MonitorTestBed::new();
    let first = bed.watch([1, 2, 3], &[checks()]);
    let slow = crate::SlowStart::new(Duration::from_secs(100));
    bed.sets[0].set_slow_start(Some(slow));
    bed.run(2500 * MS, only_fails(1));
    bed.sets[0].set_health(&id(3), Health::Down).expect("member of the set");
    bed.sets[0].set_health(&id(3), Health::Up).expect("member of the set");
    bed.run(11_000 * MS, only_fails(1));
    let balancer = Balancer::new(&bed.sets[0], crate::scheduler::RoundRobin::new())
        .expect("round robin accepts any set");
    balancer.pick(&crate::Flow::new()).expect("a backend is eligible").complete(Outcome::Timeout);
    // One of the three failures that take a backend down.
    bed.run(1000 * MS, |_, _| (MS, Err(refused_failure())));

    let saved = bed.core.export(first, bed.now);
    let text = serde_json::to_string(&saved).expect("state serializes");
    let saved: SavedHealth = serde_json::from_str(&text).expect("state deserializes");
    let mut bed = MonitorTestBed::new();
    let second = bed.watch([4, 3, 2, 1], &[checks()]);
    bed.sets[0].set_slow_start(Some(slow));
    bed.core.restore(second, &saved, bed.now).expect("no scheduler refuses");
    bed.core.poll(bed.now).clear();
    let status = |bed: &MonitorTestBed, n| {
        bed.sets[0]
            .statuses()
            .into_iter()
            .find(|status| status.id == id(n))
            .expect("member of the set")
    };
    assert_eq!(status(&bed, 1).reason.as_deref(), Some("tcp check: refused"));
    assert_eq!((bed.state(0, 1), bed.state(0, 2)), (BackendState::Down, BackendState::Eligible));
    assert_eq!(status(&bed, 3).slow_start_percent, 12);
    let timeouts =
        |n| bed.sets[0].snapshot().find(&id(n)).expect("member of the set").outcomes().timeout;
    assert_eq!((1..=4).map(timeouts).sum::<u64>(), 1);

    // Two more failures take server 2 down; one success is not enough for server 1.
    let mut bed = MonitorTestBed::new();
    let third = bed.watch([1, 2], &[checks()]);
    bed.core.restore(third, &saved, bed.now).expect("no scheduler refuses");
    bed.run(950 * MS, only_fails(2));
    assert_eq!((bed.state(0, 1), bed.state(0, 2)), (BackendState::Down, BackendState::Eligible));
    bed.run(1000 * MS, only_fails(2));
    assert_eq!((bed.state(0, 1), bed.state(0, 2)), (BackendState::Eligible, BackendState::Down));
}

#[test]
fn a_saved_result_replaces_an_older_one_of_this_process_and_no_newer_one() {
    let slow_checks = || checks().interval(30_000 * MS);
    let age_of_last = |bed: &MonitorTestBed| {
        let last = bed.started.iter().rfind(|(_, at)| *at == address(1)).expect("it was checked");
        bed.now - last.0 - MS
    };
    let mut other = MonitorTestBed::new();
    let watched = other.watch([1], &[slow_checks().fall(1)]);
    other.run(50_000 * MS, |_, _| (MS, Err(refused_failure())));
    let saved = other.core.export(watched, other.now);
    // How much newer the saved result is than this process's own.
    for (newer_by, is_replaced) in [(0, false), (1000, false), (1001, true), (20_000, true)] {
        let mut bed = MonitorTestBed::new();
        let watched = bed.watch([1, 2], &[slow_checks()]);
        bed.run(50_000 * MS, always_up);
        let (own_age, saved_age) = (age_of_last(&bed), age_of_last(&other));
        let passed = Duration::from_secs(60);
        bed.now += passed;
        let saved = saved.clone().aged_by(own_age + passed - saved_age - newer_by * MS);
        bed.core.restore(watched, &saved, bed.now).expect("no scheduler refuses");
        bed.run(MS, always_up);
        let expected = if is_replaced { BackendState::Down } else { BackendState::Eligible };
        assert_eq!(bed.state(0, 1), expected, "{newer_by} ms");
        assert_eq!(bed.state(0, 2), BackendState::Eligible, "nothing is known of it elsewhere");
    }
}
