//! The core under any timing, and under any changes of its sets.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// For any timing, a server that refuses or does not answer is down within the detection time,
    /// but not before `fall` failures, and up again after `rise` successes.
    #[test]
    fn failed_server_is_down_within_the_detection_time(
        interval in 5u32..3000,
        timeout_part in 1u32..=100,
        fast_part in proptest::option::of(1u32..=100),
        (rise, fall, jitter) in (1u32..6, 1u32..6, 0u8..=50),
        members in 1u16..40,
        dies_after in 0u32..10_000,
        silent: bool,
    ) {
        let fast = fast_part.map(|part| (interval * part / 100).max(1));
        let shortest = fast.unwrap_or(interval).min(interval);
        let timeout = (shortest * timeout_part / 100).max(1);
        let mut checks = TimedCheck::new(TcpCheck::new())
            .interval(interval * MS).timeout(timeout * MS).rise(rise).fall(fall).jitter(jitter);
        if let Some(fast) = fast {
            checks = checks.fast_interval(fast * MS);
        }
        let max_detection_time = checks.max_detection_time();
        let mut bed = MonitorTestBed::new();
        bed.watch(1..=members, &[checks]);
        let quick = MS / 10;
        let healthy = |_: Instant, _: SocketAddr| (MS / 10, Ok(CheckReport::up()));
        // Every server has been checked at least once.
        bed.run(1000 * MS + interval * MS + dies_after * MS, healthy);
        prop_assert!((1..=members).all(|n| bed.state(0, n) == BackendState::Eligible));
        let died = bed.now;
        let mut failures = 0;
        let mut dead = |now: Instant, at: SocketAddr| {
            if at != address(1) {
                return (quick, Ok(CheckReport::up()));
            }
            // Checks that started before the failure have passed.
            failures += u32::from(now >= died);
            if silent { (interval * MS, Err(timeout_failure())) } else { (quick, Err(refused_failure())) }
        };
        while bed.state(0, 1) != BackendState::Down {
            prop_assert!(bed.now < died + max_detection_time, "up after {:?}", bed.now - died);
            bed.run(MS, &mut dead);
        }
        prop_assert!(failures >= fall);
        prop_assert!((2..=members).all(|n| bed.state(0, n) == BackendState::Eligible));

        let checks_before = bed.started.len();
        bed.run(interval * MS * (rise + 1), healthy);
        prop_assert_eq!(bed.state(0, 1), BackendState::Eligible);
        let later = bed.started[checks_before..].iter();
        let checked = later.filter(|(_, server)| *server == address(1)).count();
        prop_assert!(checked >= rise as usize);
    }

    /// A server that fails fewer than `fall` checks in a row is never down.
    #[test]
    fn server_with_failures_below_fall_stays_up(
        fall in 2u32..6,
        pattern in proptest::collection::vec(any::<bool>(), 50..300),
    ) {
        let mut bed = MonitorTestBed::new();
        bed.watch([1], &[checks().fall(fall)]);
        let mut streak = 0;
        let mut pattern = pattern.into_iter().cycle();
        bed.run(1000 * MS, always_up);
        bed.run(200_000 * MS, |_, _| {
            let fail = pattern.next() == Some(true) && streak + 1 < fall;
            streak = if fail { streak + 1 } else { 0 };
            (MS, if fail { Err(refused_failure()) } else { Ok(CheckReport::up()) })
        });
        let mut downs = 0;
        while let Some(Ok(event)) = bed.events.try_next() {
            downs += u32::from(matches!(event.kind, HealthEventKind::State { to: Some(BackendState::Down), .. }));
        }
        prop_assert_eq!(downs, 0);
    }

    /// The number of checks in flight never exceeds the limit, and every server is checked.
    #[test]
    fn limit_on_checks_in_flight_holds_and_no_server_starves(limit in 1usize..20, members in 1u16..60) {
        let mut bed = MonitorTestBed::new();
        bed.core.set_max_in_flight(max_in_flight(limit));
        bed.watch(1..=members, &[checks()]);
        bed.run(60_000 * MS, |_, _| (300 * MS, Ok(CheckReport::up())));
        prop_assert!(bed.max_in_flight_seen <= limit);
        for n in 1..=members {
            let last = bed.started.iter().rev().find(|(_, at)| *at == address(n));
            let waited = bed.now - last.expect("was checked").0;
            let fair = (1000 * MS).max(300 * MS * (u32::from(members) / limit as u32 + 1)) + 300 * MS;
            prop_assert!(waited <= fair, "{n} waited for {waited:?} of {fair:?}");
        }
    }

    /// Servers fail and recover at random times; at every millisecond panic mode and quorum match the
    /// healthy servers.
    #[test]
    fn panic_mode_and_quorum_follow_health_at_every_millisecond(
        members in 1u16..12,
        moments in proptest::collection::vec((1u16..12, 0u64..6000), 1..40),
        below in 1u8..=100,
        (weight, hysteresis) in (0u64..12, 0u64..4),
        advisory: bool,
    ) {
        use crate::backend::{FailMode, Quorum};
        let mut bed = MonitorTestBed::new();
        let check = TimedCheck::new(TcpCheck::new()).interval(40 * MS).timeout(20 * MS).rise(1).fall(2);
        bed.watch(1..=members, &[check]);
        let set = bed.sets[0].clone();
        set.set_fail_mode(FailMode::PanicBelow(below)).expect("from 1 to 100");
        let quorum =
            Quorum::new(weight).with_hysteresis(hysteresis).with_advisory(advisory);
        set.set_quorum(Some(quorum)).expect("no scheduler refuses");
        let start = bed.now;
        // Each moment toggles a server.
        let is_up = |now: Instant, at: SocketAddr| {
            let turns = moments.iter().filter(|(n, ms)| {
                address(*n) == at && start + Duration::from_millis(*ms) <= now
            });
            turns.count() % 2 == 0
        };
        for _ in 0..6500 {
            bed.run(MS, |now, at| {
                (MS / 10, if is_up(now, at) { Ok(CheckReport::up()) } else { Err(refused_failure()) })
            });
            let statuses = set.statuses();
            let up = statuses.iter().filter(|status| status.health == Health::Up).count();
            let snapshot = set.snapshot();
            let has_quorum = snapshot.has_quorum();
            if up as u64 >= weight + hysteresis && up > 0 {
                prop_assert!(has_quorum, "{up} servers are up");
            }
            if up == 0 || (up as u64) < weight.saturating_sub(hysteresis) {
                prop_assert!(!has_quorum, "{up} servers are up");
            }
            let closed = !has_quorum && !advisory;
            let few = up * 100 < usize::from(members) * usize::from(below);
            prop_assert_eq!(snapshot.is_panicking(), few && !closed);
            for status in &statuses {
                let expected = match status.health {
                    Health::Up if closed => BackendState::Withheld,
                    Health::Up => BackendState::Eligible,
                    Health::Down if few && !closed => BackendState::Eligible,
                    Health::Down => BackendState::Down,
                };
                prop_assert_eq!(status.state, expected);
            }
        }
        for n in 1..=members {
            let health = if is_up(bed.now, address(n)) { Health::Up } else { Health::Down };
            let statuses = set.statuses();
            let status = statuses.iter().find(|status| status.id == id(n)).expect("member of the set");
            prop_assert_eq!(status.health, health, "every check has ended");
        }
    }
}
