//! The engine by a clock that the tests move: a world of servers that die and come back, and what
//! the set knows of it, to the millisecond.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::{BackendSet, BackendState};
use crate::health::events::HealthEventSender;
use crate::health::watched_set::ObservedBackendSet;
use crate::health::{HealthPlan, TcpCheck, TimedCheck};
use crate::{Balancer, Spec};

const MS: Duration = Duration::from_millis(1);

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9000 + n))
}

fn id(n: u16) -> BackendId {
    address(n).into()
}

fn refused_failure() -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Refused, "refused")
}

fn timeout_failure() -> CheckFailure {
    CheckFailure::new(CheckFailureKind::Timeout, "timed out")
}

/// Engine, clock, and the checks under way with the moment each will be answered.
struct MonitorTestBed {
    engine: MonitorCore,
    sets: Vec<BackendSet<SocketAddr>>,
    events: crate::health::HealthEvents,
    sender: HealthEventSender,
    now: Instant,
    in_flight: Vec<(Instant, ProbeId, Result<CheckReport, CheckFailure>)>,
    started: Vec<(Instant, SocketAddr)>,
    max_in_flight_seen: usize,
}

impl MonitorTestBed {
    fn new() -> Self {
        let sender = HealthEventSender::new();
        Self {
            engine: MonitorCore::new(10_000, 1),
            sets: Vec::new(),
            events: sender.subscribe(),
            sender,
            now: start(),
            in_flight: Vec::new(),
            started: Vec::new(),
            max_in_flight_seen: 0,
        }
    }

    fn watch(
        &mut self,
        members: impl IntoIterator<Item = u16>,
        checks: &[TimedCheck],
    ) -> WatchedServiceId {
        self.watch_with_plan(
            members,
            checks.iter().cloned().fold(HealthPlan::new("test"), HealthPlan::check),
        )
    }

    fn watch_with_plan(
        &mut self,
        members: impl IntoIterator<Item = u16>,
        plan: HealthPlan,
    ) -> WatchedServiceId {
        let set = BackendSet::new();
        for n in members {
            set.insert(address(n)).expect("a new name");
        }
        plan.validate().expect("a sound plan");
        let watched = ObservedBackendSet::new(&set, plan, self.sender.clone(), || ());
        self.sets.push(set);
        self.engine.insert(Arc::new(watched))
    }

    /// Lets time pass; `answer` says what a server says that is asked now, and after how long.
    fn run(
        &mut self,
        time: Duration,
        mut answer: impl FnMut(Instant, SocketAddr) -> (Duration, Result<CheckReport, CheckFailure>),
    ) {
        let end = self.now + time;
        loop {
            for job in self.engine.poll(self.now) {
                let (after, answer) = answer(self.now, job.key.address);
                let after = after.min(job.key.timing.timeout);
                self.started.push((self.now, job.key.address));
                self.in_flight.push((self.now + after, job.probe_id, answer));
            }
            self.max_in_flight_seen = self.max_in_flight_seen.max(self.engine.in_flight());
            assert_eq!(self.engine.in_flight(), self.in_flight.len());
            let answers = self.in_flight.iter().map(|(at, ..)| *at).min();
            let next = answers.into_iter().chain(self.engine.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            let due = |(at, ..): &mut (Instant, _, _)| *at <= now;
            for (_, id, answer) in self.in_flight.extract_if(.., due).collect::<Vec<_>>() {
                self.engine.handle_result(id, answer, now);
            }
        }
        self.now = end;
        self.engine.poll(end).into_iter().for_each(|job| {
            self.started.push((end, job.key.address));
            let (after, answer) = answer(end, job.key.address);
            self.in_flight.push((end + after.min(job.key.timing.timeout), job.probe_id, answer));
        });
    }

    fn state(&self, set: usize, n: u16) -> BackendState {
        let status = self.sets[set].statuses();
        status.iter().find(|it| it.id == id(n)).expect("in the set").state
    }
}

fn always_up(_: Instant, _: SocketAddr) -> (Duration, Result<CheckReport, CheckFailure>) {
    (MS, Ok(CheckReport::up()))
}

fn checks() -> TimedCheck {
    TimedCheck::new(TcpCheck::new()).interval(1000 * MS).timeout(500 * MS).jitter(0)
}

#[test]
fn the_first_answer_decides_and_then_rise_and_fall_do() {
    let mut world = MonitorTestBed::new();
    world.watch([1, 2], &[checks().rise(2).fall(3)]);
    let one_is = |ok: bool| {
        move |_: Instant, at: SocketAddr| {
            (
                MS,
                if ok || at == address(2) { Ok(CheckReport::up()) } else { Err(refused_failure()) },
            )
        }
    };
    world.run(1002 * MS, one_is(false));
    assert_eq!(
        (world.state(0, 1), world.state(0, 2)),
        (BackendState::Down, BackendState::Eligible)
    );
    let why =
        world.sets[0].statuses().iter().find(|it| it.id == id(1)).and_then(|it| it.reason.clone());
    assert_eq!(why.as_deref(), Some("tcp check: refused"));
    world.run(1000 * MS, one_is(true));
    assert_eq!(world.state(0, 1), BackendState::Down, "one success of two");
    world.run(1000 * MS, one_is(true));
    assert_eq!(world.state(0, 1), BackendState::Eligible);
    for _ in 0..2 {
        world.run(2000 * MS, one_is(false));
        assert_eq!(world.state(0, 1), BackendState::Eligible, "two failures of three");
        world.run(1000 * MS, one_is(true));
    }
    world.run(3000 * MS, one_is(false));
    assert_eq!(world.state(0, 1), BackendState::Down);
}

#[test]
fn a_shortage_of_this_machine_is_held_against_nobody() {
    let mut world = MonitorTestBed::new();
    world.watch([1], &[checks().fall(1)]);
    world.run(2500 * MS, always_up);
    let lacking = CheckFailure::new(CheckFailureKind::Local, "no descriptors");
    world.run(9000 * MS, |_, _| (MS, Err(lacking.clone())));
    assert_eq!(world.state(0, 1), BackendState::Eligible);
    assert_eq!(
        (world.engine.failure_counts().local, world.engine.failure_counts().backend),
        (9, 0)
    );
}

#[test]
fn the_fast_interval_holds_while_the_state_is_about_to_change() {
    let mut world = MonitorTestBed::new();
    let timing = checks().timeout(100 * MS).fast_interval(100 * MS).down_interval(5000 * MS);
    world.watch([1], &[timing]);
    world.run(1500 * MS, always_up);
    world.started.clear();
    world.run(20_000 * MS, |_, _| (MS, Err(refused_failure())));
    let times: Vec<_> = world.started.iter().map(|(at, _)| *at - world.started[0].0).collect();
    let expected = [0, 100, 200, 5200, 10_200, 15_200].map(|ms| ms * MS);
    assert_eq!(times[..6], expected);
}

#[test]
fn services_that_share_an_address_and_a_check_share_the_probe() {
    let mut world = MonitorTestBed::new();
    let shared = checks();
    let first = world.watch([1, 2], std::slice::from_ref(&shared));
    world.watch([2, 3], &[shared.clone(), shared.clone().port(7)]);
    world.watch([2], &[checks()]);
    world.run(1001 * MS, always_up);
    // 1, 2, 3; port 7 for both of the second service; 2 by a check of its own.
    assert_eq!(world.engine.probe_count(), 5);
    world.run(4000 * MS, |_, at| {
        (MS, if at == address(2) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
    });
    assert_eq!((world.state(0, 2), world.state(1, 2)), (BackendState::Down, BackendState::Down));
    assert_eq!(
        (world.state(0, 1), world.state(1, 3)),
        (BackendState::Eligible, BackendState::Eligible)
    );
    world.engine.remove(first);
    assert_eq!(world.engine.probe_count(), 4, "1 is nobody's any more");
    // A newcomer learns at once what is known.
    world.watch([2], &[shared]);
    world.run(MS, always_up);
    assert_eq!(world.state(3, 2), BackendState::Down);
}

#[test]
fn a_backend_is_up_while_none_of_its_checks_says_no() {
    let mut world = MonitorTestBed::new();
    world.watch([1], &[checks().fall(1).rise(1), checks().fall(1).rise(1).port(7)]);
    let answer = |bad: Option<u16>| {
        move |_: Instant, at: SocketAddr| {
            (
                MS,
                if bad == Some(at.port()) { Err(refused_failure()) } else { Ok(CheckReport::up()) },
            )
        }
    };
    world.run(2500 * MS, answer(None));
    assert_eq!(world.state(0, 1), BackendState::Eligible);
    world.run(1000 * MS, answer(Some(7)));
    assert_eq!(world.state(0, 1), BackendState::Down);
    world.run(1000 * MS, answer(Some(9001)));
    assert_eq!(world.state(0, 1), BackendState::Down);
    world.run(1000 * MS, answer(None));
    assert_eq!(world.state(0, 1), BackendState::Eligible);
}

#[test]
fn members_come_and_go_and_move() {
    let mut world = MonitorTestBed::new();
    world.watch([1, 2], &[checks().fall(1)]);
    world.run(2500 * MS, always_up);
    let set = world.sets[0].clone();
    set.remove(&id(1)).expect("known");
    set.insert(address(3)).expect("new");
    set.insert(Spec::new("unix", address(4))).expect("new");
    set.set_target(&id(2), address(5), Some(address(5))).expect("known");
    world.run(MS, always_up);
    assert_eq!(
        world.engine.probe_count(),
        2,
        "3, and 2 at its new address; one without is not asked"
    );
    world.started.clear();
    world.run(2000 * MS, |_, at| {
        (MS, if at == address(5) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
    });
    assert!(world.started.iter().all(|(_, at)| [address(3), address(5)].contains(at)));
    assert_eq!(
        (world.state(0, 2), world.state(0, 3)),
        (BackendState::Down, BackendState::Eligible)
    );
}

#[test]
fn a_thousand_checks_never_fire_together() {
    let mut world = MonitorTestBed::new();
    world.watch(1..=1000, &[checks()]);
    world.run(10_000 * MS, always_up);
    let last = world.started.iter().filter(|(at, _)| world.now - *at < 1000 * MS);
    let mut per_ms = HashMap::<u128, u32>::new();
    last.for_each(|(at, _)| *per_ms.entry((world.now - *at).as_millis()).or_default() += 1);
    assert!(per_ms.values().all(|count| *count <= 3), "one a millisecond would be even");
    assert!((9_990..=10_001).contains(&world.started.len()));
    assert!(world.max_in_flight_seen <= 4);
}

#[test]
fn what_many_checks_say_at_once_is_one_publication() {
    let mut world = MonitorTestBed::new();
    world.watch(1..=100, &[checks().timeout(1000 * MS).fall(1)]);
    world.run(2500 * MS, always_up);
    let before = world.sets[0].snapshot().generation();
    // All asked, all unanswered until the same moment.
    let now = world.now;
    let silent = move |at: Instant, _| (now + 951 * MS - at, Err(timeout_failure()));
    world.run(950 * MS, silent);
    for (_, id, answer) in std::mem::take(&mut world.in_flight) {
        world.engine.handle_result(id, answer, world.now);
    }
    world.engine.poll(world.now);
    assert_eq!(world.sets[0].snapshot().generation(), before + 1);
    assert!(
        world.sets[0].statuses().iter().filter(|it| it.state == BackendState::Down).count() > 90
    );
}

#[test]
fn a_scheduler_that_refuses_holds_nothing_up_and_is_asked_again() {
    use crate::scheduler::{CompileError, Picker, Scheduler};
    #[derive(Debug)]
    struct RefusingScheduler(std::sync::atomic::AtomicBool);
    impl Scheduler for RefusingScheduler {
        fn name(&self) -> &str {
            "moody"
        }
        fn compile(
            &self,
            members: &crate::backend::Members,
            previous: Option<&dyn Picker>,
        ) -> Result<Box<dyn Picker>, CompileError> {
            if self.0.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(CompileError::Other("not today".into()));
            }
            crate::scheduler::RoundRobin.compile(members, previous)
        }
    }
    let mut world = MonitorTestBed::new();
    world.watch([1], &[checks().fall(1)]);
    let moody = Arc::new(RefusingScheduler(false.into()));
    let balancer = Balancer::new(&world.sets[0], Arc::clone(&moody)).expect("in a good mood");
    world.run(2500 * MS, always_up);
    moody.0.store(true, std::sync::atomic::Ordering::SeqCst);
    world.run(2500 * MS, |_, _| (MS, Err(refused_failure())));
    assert_eq!(world.state(0, 1), BackendState::Eligible);
    let mut refusals = 0;
    while let Some(Ok(event)) = world.events.try_next() {
        refusals += u32::from(matches!(event.kind, HealthEventKind::PublishRefused { .. }));
    }
    assert!((2..=3).contains(&refusals), "told each second: {refusals}");
    moody.0.store(false, std::sync::atomic::Ordering::SeqCst);
    world.run(1000 * MS, |_, _| (MS, Err(refused_failure())));
    assert_eq!(world.state(0, 1), BackendState::Down);
    drop(balancer);
}

#[test]
fn advice_adds_up_and_warnings_are_said_once() {
    use crate::backend::AgentWeight;
    let mut world = MonitorTestBed::new();
    world.watch([1], &[checks()]);
    world.sets[0].set_weight(&id(1), 10).expect("known");
    let weight = |percent| AgentOverride {
        weight: Some(AgentWeight::Percent(percent)),
        ..AgentOverride::default()
    };
    let half = CheckReport::up().with_agent_override(weight(50)).with_warning("expires in 3 days");
    world.run(5500 * MS, |_, _| (MS, Ok(half.clone())));
    assert_eq!(world.sets[0].statuses()[0].effective_weight, 5);
    world.run(5000 * MS, always_up);
    assert_eq!(world.sets[0].statuses()[0].effective_weight, 5, "who says nothing changes nothing");
    world.run(1000 * MS, |_, _| (MS, Ok(CheckReport::up().with_agent_override(weight(100)))));
    assert_eq!(world.sets[0].statuses()[0].effective_weight, 10);
    let events = std::iter::from_fn(|| world.events.try_next()).filter_map(Result::ok);
    let warnings = events.filter(|it| matches!(it.kind, HealthEventKind::Warning { .. })).count();
    assert_eq!(warnings, 1, "said once, while it stands");
}

#[test]
fn what_was_known_is_known_after_a_restart() {
    let well_but = |bad: u16| {
        move |_: Instant, at: SocketAddr| {
            (MS, if at == address(bad) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
        }
    };
    let mut world = MonitorTestBed::new();
    let first = world.watch([1, 2, 3], &[checks()]);
    let slow = crate::SlowStart::new(Duration::from_secs(100));
    world.sets[0].set_slow_start(Some(slow));
    world.run(2500 * MS, well_but(1));
    world.sets[0].set_health(&id(3), Health::Down).expect("known");
    world.sets[0].set_health(&id(3), Health::Up).expect("known");
    world.run(11_000 * MS, well_but(1));
    let balancer = Balancer::new(&world.sets[0], crate::scheduler::RoundRobin).expect("a rule");
    balancer.pick(&crate::Flow::new()).expect("somebody").complete(crate::Outcome::Timeout);
    // One failure of three.
    world.run(1000 * MS, |_, _| (MS, Err(refused_failure())));

    let saved = world.engine.export(first, world.now);
    let text = serde_json::to_string(&saved).expect("plain data");
    let saved: SavedHealth = serde_json::from_str(&text).expect("what was written");
    let mut world = MonitorTestBed::new();
    let second = world.watch([4, 3, 2, 1], &[checks()]);
    world.sets[0].set_slow_start(Some(slow));
    world.engine.restore(second, &saved, world.now).expect("rr takes anything");
    world.engine.poll(world.now).clear();
    let status = |world: &MonitorTestBed, n| {
        world.sets[0].statuses().into_iter().find(|it| it.id == id(n)).expect("in the set")
    };
    assert_eq!(status(&world, 1).reason.as_deref(), Some("tcp check: refused"));
    assert_eq!(
        (world.state(0, 1), world.state(0, 2)),
        (BackendState::Down, BackendState::Eligible)
    );
    assert_eq!(status(&world, 3).slow_start_percent, 12);
    let timeouts = |n| world.sets[0].snapshot().find(&id(n)).expect("there").outcomes().timeout;
    assert_eq!((1..=4).map(timeouts).sum::<u64>(), 1);

    // Two more failures take 2 down; one success is not enough for 1.
    let mut world = MonitorTestBed::new();
    let third = world.watch([1, 2], &[checks()]);
    world.engine.restore(third, &saved, world.now).expect("rr takes anything");
    world.run(950 * MS, well_but(2));
    assert_eq!(
        (world.state(0, 1), world.state(0, 2)),
        (BackendState::Down, BackendState::Eligible)
    );
    world.run(1000 * MS, well_but(2));
    assert_eq!(
        (world.state(0, 1), world.state(0, 2)),
        (BackendState::Eligible, BackendState::Down)
    );
}

/// Serves requests one after the other, of which those to some servers fail.
fn traffic(balancer: &Balancer<SocketAddr>, requests: u32, fails: impl Fn(u16) -> bool) -> u32 {
    let serve = |_| {
        let lease = balancer.pick(&crate::Flow::new()).expect("somebody");
        let failed = fails(lease.target().port() - 9000);
        let outcome = if failed { crate::Outcome::AppError } else { crate::Outcome::Ok };
        lease.complete(outcome);
        u32::from(failed)
    };
    (0..requests).map(serve).sum()
}

#[test]
fn an_ejected_backend_is_tried_and_comes_back_by_its_ramp() {
    use crate::health::EjectionPolicy;
    let mut world = MonitorTestBed::new();
    let plan = HealthPlan::new("test").ejection(EjectionPolicy::new());
    let first = world.watch_with_plan(1..=5, plan.clone());
    let balancer = Balancer::new(&world.sets[0], crate::scheduler::RoundRobin).expect("a rule");
    world.run(100 * MS, always_up);
    assert_eq!(traffic(&balancer, 25, |n| n == 1), 5, "the fifth raises its hand");
    assert_eq!(world.state(0, 1), BackendState::Eligible, "nobody has looked yet");
    world.run(MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Ejected);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 0);
    let status = |world: &MonitorTestBed| {
        world.sets[0].statuses().into_iter().find(|it| it.id == id(1)).expect("in the set")
    };
    let why = status(&world).reason.expect("a reason");
    assert_eq!(&*why, "ejected for 30.0s: 5 failures in a row");

    // It fails its trial: one request, and out for longer.
    world.run(29_998 * MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Ejected);
    world.run(2 * MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Eligible);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 1);
    world.run(MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Ejected);

    // Another process goes on with what is left of it.
    let saved = world.engine.export(first, world.now + 10_000 * MS);
    let text = serde_json::to_string(&saved).expect("plain data");
    let saved: SavedHealth = serde_json::from_str(&text).expect("what was written");
    let mut world = MonitorTestBed::new();
    let second = world.watch_with_plan(1..=5, plan);
    let balancer = Balancer::new(&world.sets[0], crate::scheduler::RoundRobin).expect("a rule");
    world.engine.restore(second, &saved, world.now).expect("rr takes anything");
    world.run(MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Ejected);
    // Two in a row make 60 s, less the 30 s that a sweep without one has taken off in between.
    world.run(49_998 * MS, always_up);
    let left = world.state(0, 1);
    world.run(2 * MS, always_up);
    assert_eq!(world.state(0, 1), BackendState::Eligible, "was {left}");

    // It passes, and its share grows.
    assert_eq!(traffic(&balancer, 100, |_| false), 0);
    world.run(MS, always_up);
    assert_eq!(status(&world).slow_start_percent, 10);
    world.run(5000 * MS, always_up);
    assert_eq!(status(&world).slow_start_percent, 50);
    world.run(5000 * MS, always_up);
    assert_eq!(status(&world).slow_start_percent, 100);
}

#[test]
fn a_trial_that_goes_on_and_on_has_passed() {
    use crate::health::EjectionPolicy;
    let mut world = MonitorTestBed::new();
    world
        .watch_with_plan(1..=5, HealthPlan::new("test").ejection(EjectionPolicy::new().ramp(None)));
    let balancer = Balancer::new(&world.sets[0], crate::scheduler::RoundRobin).expect("a rule");
    world.run(100 * MS, always_up);
    traffic(&balancer, 25, |n| n == 1);
    world.run(30_001 * MS, always_up);
    let lease = loop {
        let lease = balancer.pick(&crate::Flow::new()).expect("somebody");
        if lease.id() == &id(1) {
            break lease;
        }
    };
    world.run(9_999 * MS, always_up);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 0, "its one place is taken");
    world.run(2 * MS, always_up);
    assert_eq!(traffic(&balancer, 100, |n| n == 1), 20);
    drop(lease);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the timing and whenever a server dies, by refusing or by silence, it is down within
    /// the promised time and not before `fall` failures; and it is up again by `rise` successes.
    #[test]
    fn detection_keeps_its_promise(
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
        let promise = checks.max_detection_time();
        let mut world = MonitorTestBed::new();
        world.watch(1..=members, &[checks]);
        let quick = MS / 10;
        let well = |_: Instant, _: SocketAddr| (MS / 10, Ok(CheckReport::up()));
        // All have answered, and then some.
        world.run(1000 * MS + interval * MS + dies_after * MS, well);
        prop_assert!((1..=members).all(|n| world.state(0, n) == BackendState::Eligible));
        let died = world.now;
        let mut failures = 0;
        let dead = |now: Instant, at: SocketAddr| {
            if at != address(1) {
                return (quick, Ok(CheckReport::up()));
            }
            // What was asked before it died has its answer.
            failures += u32::from(now >= died);
            if silent { (interval * MS, Err(timeout_failure())) } else { (quick, Err(refused_failure())) }
        };
        let mut dead = dead;
        while world.state(0, 1) != BackendState::Down {
            prop_assert!(world.now < died + promise, "up after {:?}", world.now - died);
            world.run(MS, &mut dead);
        }
        prop_assert!(failures >= fall);
        prop_assert!((2..=members).all(|n| world.state(0, n) == BackendState::Eligible));

        let begun = world.started.len();
        world.run(interval * MS * (rise + 1), well);
        prop_assert_eq!(world.state(0, 1), BackendState::Eligible);
        let asked = world.started[begun..].iter().filter(|(_, at)| *at == address(1)).count();
        prop_assert!(asked >= rise as usize);
    }

    /// A server that fails less than `fall` times in a row is never down.
    #[test]
    fn who_flaps_below_the_threshold_stays_up(
        fall in 2u32..6,
        pattern in proptest::collection::vec(any::<bool>(), 50..300),
    ) {
        let mut world = MonitorTestBed::new();
        world.watch([1], &[checks().fall(fall)]);
        let mut run = 0;
        let mut pattern = pattern.into_iter().cycle();
        world.run(1000 * MS, always_up);
        world.run(200_000 * MS, |_, _| {
            let fail = pattern.next() == Some(true) && run + 1 < fall;
            run = if fail { run + 1 } else { 0 };
            (MS, if fail { Err(refused_failure()) } else { Ok(CheckReport::up()) })
        });
        let mut downs = 0;
        while let Some(Ok(event)) = world.events.try_next() {
            downs += u32::from(matches!(event.kind, HealthEventKind::State { to: Some(BackendState::Down), .. }));
        }
        prop_assert_eq!(downs, 0);
    }

    /// No more are asked at a time than allowed, and none is forgotten.
    #[test]
    fn the_bound_holds_and_nobody_starves(bound in 1usize..20, members in 1u16..60) {
        let mut world = MonitorTestBed::new();
        world.engine.set_max_in_flight(bound);
        world.watch(1..=members, &[checks()]);
        world.run(60_000 * MS, |_, _| (300 * MS, Ok(CheckReport::up())));
        prop_assert!(world.max_in_flight_seen <= bound);
        for n in 1..=members {
            let last = world.started.iter().rev().find(|(_, at)| *at == address(n));
            let waited = world.now - last.expect("asked at all").0;
            let fair = (1000 * MS).max(300 * MS * (u32::from(members) / bound as u32 + 1)) + 300 * MS;
            prop_assert!(waited <= fair, "{n} waited for {waited:?} of {fair:?}");
        }
    }

    /// Servers come and go at random moments; at every millisecond the set is in panic, and has its
    /// quorum, exactly as those say that are up.
    #[test]
    fn panic_and_quorum_follow_health_at_every_moment(
        members in 1u16..12,
        moments in proptest::collection::vec((1u16..12, 0u64..6000), 1..40),
        below in 0u8..=100,
        (weight, hysteresis) in (0u64..12, 0u64..4),
        advisory: bool,
    ) {
        use crate::backend::{FailMode, Quorum};
        let mut world = MonitorTestBed::new();
        let check = TimedCheck::new(TcpCheck::new()).interval(40 * MS).timeout(20 * MS).rise(1).fall(2);
        world.watch(1..=members, &[check]);
        let set = world.sets[0].clone();
        set.set_fail_mode(FailMode::PanicBelow(below)).expect("no scheduler");
        let quorum = Quorum::new(weight).hysteresis(hysteresis);
        let quorum = if advisory { quorum.advisory() } else { quorum };
        set.set_quorum(Some(quorum)).expect("no scheduler");
        let begun = world.now;
        // Each moment turns a server over.
        let is_up = |now: Instant, at: SocketAddr| {
            let turns = moments.iter().filter(|(n, ms)| {
                address(*n) == at && begun + Duration::from_millis(*ms) <= now
            });
            turns.count() % 2 == 0
        };
        for _ in 0..6500 {
            world.run(MS, |now, at| {
                (MS / 10, if is_up(now, at) { Ok(CheckReport::up()) } else { Err(refused_failure()) })
            });
            let status = set.statuses();
            let up = status.iter().filter(|it| it.health == Health::Up).count();
            let snapshot = set.snapshot();
            let has_quorum = snapshot.has_quorum();
            if up as u64 >= weight + hysteresis && up > 0 {
                prop_assert!(has_quorum, "{up} are up");
            }
            if up == 0 || (up as u64) < weight.saturating_sub(hysteresis) {
                prop_assert!(!has_quorum, "{up} are up");
            }
            let closed = !has_quorum && !advisory;
            let few = up * 100 < usize::from(members) * usize::from(below);
            prop_assert_eq!(snapshot.is_panicking(), few && !closed);
            for it in &status {
                let expected = match it.health {
                    Health::Up if closed => BackendState::Withheld,
                    Health::Up => BackendState::Eligible,
                    Health::Down if few && !closed => BackendState::Eligible,
                    Health::Down => BackendState::Down,
                };
                prop_assert_eq!(it.state, expected);
            }
        }
        for n in 1..=members {
            let health = if is_up(world.now, address(n)) { Health::Up } else { Health::Down };
            let known = set.statuses().into_iter().find(|it| it.id == id(n)).expect("there").health;
            prop_assert_eq!(known, health, "long settled");
        }
    }
}
