//! The core with a clock that the tests advance: servers fail and recover, and the health in the set
//! is checked to the millisecond.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::backend::{BackendId, BackendSet, BackendState};
use crate::health::events::{HealthEvent, HealthEventSender, HealthEvents};
use crate::health::set_observer::ObservedBackendSet;
use crate::health::{EjectionPolicy, InitialHealth, TcpCheck, TimedCheck};
use crate::{Balancer, Outcome, Spec};

const MS: Duration = Duration::from_millis(1);

fn max_in_flight(max: usize) -> NonZeroUsize {
    NonZeroUsize::new(max).expect("the limit is above 0")
}

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

/// A core, its clock, its sets, and the checks in flight with the time and the result of each.
struct MonitorTestBed {
    core: MonitorCore,
    sets: Vec<BackendSet<SocketAddr>>,
    events: HealthEvents,
    sender: HealthEventSender,
    now: Instant,
    in_flight: Vec<(Instant, ProbeId, Result<CheckReport, CheckFailure>)>,
    /// The start and the address of each check so far.
    started: Vec<(Instant, SocketAddr)>,
    max_in_flight_seen: usize,
}

impl MonitorTestBed {
    fn new() -> Self {
        let sender = HealthEventSender::new(None);
        Self {
            core: MonitorCore::new(max_in_flight(10_000), 1),
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
            set.insert(address(n)).expect("the name is new");
        }
        plan.validate().expect("the plan is valid");
        let watched = ObservedBackendSet::new(&set, plan, self.sender.clone(), || ());
        self.sets.push(set);
        self.core.insert(Arc::new(watched), None, self.now)
    }

    /// Advances the clock; `answer` returns the result of a check that starts now, and its duration.
    fn run(
        &mut self,
        time: Duration,
        mut answer: impl FnMut(Instant, SocketAddr) -> (Duration, Result<CheckReport, CheckFailure>),
    ) {
        let end = self.now + time;
        loop {
            for job in self.core.poll(self.now) {
                let (duration, result) = answer(self.now, job.key.address);
                let duration = duration.min(job.key.timing.timeout);
                self.started.push((self.now, job.key.address));
                self.in_flight.push((self.now + duration, job.probe_id, result));
            }
            self.max_in_flight_seen = self.max_in_flight_seen.max(self.core.in_flight());
            assert_eq!(self.core.in_flight(), self.in_flight.len());
            let next_result = self.in_flight.iter().map(|(end, ..)| *end).min();
            let next = next_result.into_iter().chain(self.core.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let now = self.now;
            let is_done = |(end, ..): &mut (Instant, _, _)| *end <= now;
            for (_, id, result) in self.in_flight.extract_if(.., is_done).collect::<Vec<_>>() {
                self.core.handle_result(id, result, now);
            }
        }
        self.now = end;
        self.core.poll(end).into_iter().for_each(|job| {
            self.started.push((end, job.key.address));
            let (duration, result) = answer(end, job.key.address);
            let duration = duration.min(job.key.timing.timeout);
            self.in_flight.push((end + duration, job.probe_id, result));
        });
    }

    fn state(&self, set: usize, n: u16) -> BackendState {
        let statuses = self.sets[set].statuses();
        statuses.iter().find(|status| status.id == id(n)).expect("member of the set").state
    }
}

fn always_up(_: Instant, _: SocketAddr) -> (Duration, Result<CheckReport, CheckFailure>) {
    (MS, Ok(CheckReport::up()))
}

fn checks() -> TimedCheck {
    TimedCheck::new(TcpCheck::new()).interval(1000 * MS).timeout(500 * MS).jitter(0)
}

#[test]
fn first_result_decides_and_then_rise_and_fall_do() {
    let mut bed = MonitorTestBed::new();
    bed.watch([1, 2], &[checks().rise(2).fall(3)]);
    let first_server = |ok: bool| {
        move |_: Instant, at: SocketAddr| {
            (
                MS,
                if ok || at == address(2) { Ok(CheckReport::up()) } else { Err(refused_failure()) },
            )
        }
    };
    bed.run(1002 * MS, first_server(false));
    assert_eq!((bed.state(0, 1), bed.state(0, 2)), (BackendState::Down, BackendState::Eligible));
    let statuses = bed.sets[0].statuses();
    let status = statuses.iter().find(|status| status.id == id(1)).expect("member of the set");
    assert_eq!(status.reason.as_deref(), Some("tcp check: refused"));
    bed.run(1000 * MS, first_server(true));
    assert_eq!(bed.state(0, 1), BackendState::Down, "one of two successes");
    bed.run(1000 * MS, first_server(true));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    for _ in 0..2 {
        bed.run(2000 * MS, first_server(false));
        assert_eq!(bed.state(0, 1), BackendState::Eligible, "two of three failures");
        bed.run(1000 * MS, first_server(true));
    }
    bed.run(3000 * MS, first_server(false));
    assert_eq!(bed.state(0, 1), BackendState::Down);
}

#[test]
fn local_failures_do_not_change_health() {
    let mut bed = MonitorTestBed::new();
    bed.watch([1], &[checks().fall(1)]);
    bed.run(2500 * MS, always_up);
    let local_failure = CheckFailure::new(CheckFailureKind::Local, "no descriptors");
    bed.run(9000 * MS, |_, _| (MS, Err(local_failure.clone())));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    assert_eq!((bed.core.failure_counts().local, bed.core.failure_counts().backend), (9, 0));
    let events: Vec<_> =
        std::iter::from_fn(|| bed.events.try_next()).map(|event| event.expect("no gap")).collect();
    let texts: Vec<_> = events.iter().map(HealthEvent::to_string).collect();
    let once =
        "service test: server 127.0.0.1:9001 could not be checked: tcp check: no descriptors";
    assert_eq!(texts, [once]);
}

#[test]
fn a_check_that_has_never_run_takes_its_backend_down_with_the_reason() {
    let mut bed = MonitorTestBed::new();
    bed.watch([1], &[checks().fall(3).rise(2)]);
    let no_program = CheckFailure::new(CheckFailureKind::Local, "no program");
    let reason = |bed: &MonitorTestBed| {
        bed.sets[0].statuses()[0].reason.as_deref().unwrap_or_default().to_owned()
    };
    bed.run(1500 * MS, |_, _| (MS, Err(no_program.clone())));
    assert_eq!(bed.state(0, 1), BackendState::Eligible, "two of three");
    assert_eq!(reason(&bed), "cannot be checked: tcp check: no program");
    bed.run(1000 * MS, |_, _| (MS, Err(no_program.clone())));
    assert_eq!(bed.state(0, 1), BackendState::Down);
    assert_eq!(reason(&bed), "cannot be checked: tcp check: no program");
    // The first result decides alone, and the reason is that of the result.
    bed.run(1001 * MS, |_, _| (MS, Err(refused_failure())));
    assert_eq!((bed.state(0, 1), &*reason(&bed)), (BackendState::Down, "tcp check: refused"));
    bed.run(1000 * MS, |_, _| (MS, Err(no_program.clone())));
    assert_eq!(
        reason(&bed),
        "cannot be checked: tcp check: no program; down before: tcp check: refused"
    );
    bed.run(2000 * MS, always_up);
    assert_eq!((bed.state(0, 1), &*reason(&bed)), (BackendState::Eligible, "tcp check passed"));
    // A backend that was checked keeps its health, and shows why it is not checked.
    bed.run(9000 * MS, |_, _| (MS, Err(no_program.clone())));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    assert_eq!(reason(&bed), "cannot be checked: tcp check: no program");
    bed.run(1000 * MS, always_up);
    assert_eq!(reason(&bed), "tcp check passed");
}

#[test]
fn the_initial_health_is_that_of_haproxys_init_state() {
    use InitialHealth::{Down, FullyDown, FullyUp, Up};
    let is_up = |init: InitialHealth, answers: &[bool]| {
        let mut bed = MonitorTestBed::new();
        bed.watch([1], &[checks().rise(2).fall(3).init(init)]);
        let mut states = vec![bed.state(0, 1) == BackendState::Eligible];
        for ok in answers {
            let first = bed.started.len();
            while bed.started.len() == first {
                bed.run(10 * MS, always_up_or_not(*ok));
            }
            bed.run(10 * MS, always_up_or_not(*ok));
            states.push(bed.state(0, 1) == BackendState::Eligible);
        }
        // New members have it too, before their first check.
        bed.sets[0].insert(address(2)).expect("the name is new");
        assert_eq!(bed.state(0, 2) == BackendState::Eligible, states[0]);
        states
    };
    assert_eq!(is_up(Up, &[false, false]), [true, false, false]);
    assert_eq!(is_up(Up, &[true, true]), [true, true, true]);
    assert_eq!(is_up(Down, &[true, true]), [false, true, true]);
    assert_eq!(is_up(Down, &[false, true, true]), [false, false, false, true]);
    assert_eq!(is_up(FullyUp, &[false, false, false]), [true, true, true, false]);
    assert_eq!(is_up(FullyDown, &[true, true]), [false, false, true]);
}

fn always_up_or_not(
    ok: bool,
) -> impl FnMut(Instant, SocketAddr) -> (Duration, Result<CheckReport, CheckFailure>) {
    move |_, _| (MS, if ok { Ok(CheckReport::up()) } else { Err(refused_failure()) })
}

#[test]
fn a_known_backend_keeps_its_health_whatever_the_initial_health_of_new_checks() {
    let mut bed = MonitorTestBed::new();
    let first = bed.watch([1], &[checks()]);
    bed.run(1500 * MS, always_up);
    let known = bed.core.export(first, bed.now);
    bed.core.remove(first);
    let set = bed.sets[0].clone();
    set.insert(address(2)).expect("the name is new");
    assert_eq!(bed.state(0, 2), BackendState::Eligible, "nothing checks it");
    let init = || checks().init(InitialHealth::FullyDown);
    let plan = HealthPlan::new("test").check(init()).check(init());
    let watched = ObservedBackendSet::new(&set, plan, bed.sender.clone(), || ());
    bed.core.insert(Arc::new(watched), Some(&known), bed.now);
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    assert_eq!(bed.state(0, 2), BackendState::Down, "the earlier watch did not know it");
    bed.run(3500 * MS, always_up);
    assert_eq!(bed.state(0, 2), BackendState::Eligible);
    let events: Vec<_> =
        std::iter::from_fn(|| bed.events.try_next()).map(|event| event.expect("no gap")).collect();
    let of_first = |event: &&HealthEvent| event.to_string().contains(":9001");
    assert_eq!(events.iter().filter(of_first).count(), 0, "{events:?}");
}

#[test]
fn fast_interval_applies_while_health_may_be_changing() {
    let mut bed = MonitorTestBed::new();
    let timing = checks().timeout(100 * MS).fast_interval(100 * MS).down_interval(5000 * MS);
    bed.watch([1], &[timing]);
    bed.run(1500 * MS, always_up);
    bed.started.clear();
    bed.run(20_000 * MS, |_, _| (MS, Err(refused_failure())));
    let times: Vec<_> = bed.started.iter().map(|(at, _)| *at - bed.started[0].0).collect();
    let expected = [0, 100, 200, 5200, 10_200, 15_200].map(|ms| ms * MS);
    assert_eq!(times[..6], expected);
}

#[test]
fn services_with_the_same_address_and_check_share_a_probe() {
    let mut bed = MonitorTestBed::new();
    let shared = checks();
    let first = bed.watch([1, 2], std::slice::from_ref(&shared));
    bed.watch([2, 3], &[shared.clone(), shared.clone().port(7)]);
    bed.watch([2], &[checks()]);
    bed.run(1001 * MS, always_up);
    // Servers 1, 2, 3; port 7 for both of the second service; server 2 by a check of its own.
    assert_eq!(bed.core.probe_count(), 5);
    bed.run(4000 * MS, |_, at| {
        (MS, if at == address(2) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
    });
    assert_eq!((bed.state(0, 2), bed.state(1, 2)), (BackendState::Down, BackendState::Down));
    assert_eq!(
        (bed.state(0, 1), bed.state(1, 3)),
        (BackendState::Eligible, BackendState::Eligible)
    );
    bed.core.remove(first);
    assert_eq!(bed.core.probe_count(), 4, "server 1 is in no service any more");
    // A new service gets the verdict of the shared probe at once.
    bed.watch([2], &[shared]);
    bed.run(MS, always_up);
    assert_eq!(bed.state(3, 2), BackendState::Down);
}

#[test]
fn backend_is_up_while_none_of_its_checks_has_it_down() {
    let mut bed = MonitorTestBed::new();
    bed.watch([1], &[checks().fall(1).rise(1), checks().fall(1).rise(1).port(7)]);
    let failing_port = |bad: Option<u16>| {
        move |_: Instant, at: SocketAddr| {
            (
                MS,
                if bad == Some(at.port()) { Err(refused_failure()) } else { Ok(CheckReport::up()) },
            )
        }
    };
    bed.run(2500 * MS, failing_port(None));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    bed.run(1000 * MS, failing_port(Some(7)));
    assert_eq!(bed.state(0, 1), BackendState::Down);
    bed.run(1000 * MS, failing_port(Some(9001)));
    assert_eq!(bed.state(0, 1), BackendState::Down);
    bed.run(1000 * MS, failing_port(None));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
}

#[test]
fn probes_follow_added_removed_and_moved_members() {
    let mut bed = MonitorTestBed::new();
    bed.watch([1, 2], &[checks().fall(1)]);
    bed.run(2500 * MS, always_up);
    let set = bed.sets[0].clone();
    set.remove(&id(1)).expect("member of the set");
    set.insert(address(3)).expect("the name is new");
    set.insert(Spec::new("unix", address(4))).expect("the name is new");
    set.set_target(&id(2), address(5), Some(address(5))).expect("member of the set");
    bed.run(MS, always_up);
    let is_not_checked = |kind: &HealthEventKind| match kind {
        HealthEventKind::NotChecked { id, check, others: 0 } => {
            *id == BackendId::from("unix") && **check == *"tcp"
        }
        _ => false,
    };
    let events = std::iter::from_fn(|| bed.events.try_next());
    let unchecked = events.filter(|event| event.as_ref().is_ok_and(|e| is_not_checked(&e.kind)));
    assert_eq!(unchecked.count(), 1);
    assert_eq!(
        bed.core.probe_count(),
        2,
        "server 3, and server 2 at its new address; the member without an address has no probe"
    );
    bed.started.clear();
    bed.run(2000 * MS, |_, at| {
        (MS, if at == address(5) { Err(refused_failure()) } else { Ok(CheckReport::up()) })
    });
    assert!(bed.started.iter().all(|(_, at)| [address(3), address(5)].contains(at)));
    assert_eq!((bed.state(0, 2), bed.state(0, 3)), (BackendState::Down, BackendState::Eligible));
}

#[test]
fn a_thousand_checks_are_spread_evenly() {
    let mut bed = MonitorTestBed::new();
    bed.watch(1..=1000, &[checks()]);
    bed.run(10_000 * MS, always_up);
    let last_second = bed.started.iter().filter(|(at, _)| bed.now - *at < 1000 * MS);
    let mut per_ms = HashMap::<u128, u32>::new();
    last_second.for_each(|(at, _)| *per_ms.entry((bed.now - *at).as_millis()).or_default() += 1);
    assert!(per_ms.values().all(|count| *count <= 3), "1 per millisecond is perfectly even");
    assert!((9_990..=10_001).contains(&bed.started.len()));
    assert!(bed.max_in_flight_seen <= 4);
}

#[test]
fn results_of_many_checks_at_once_are_one_publication() {
    let mut bed = MonitorTestBed::new();
    bed.watch(1..=100, &[checks().timeout(1000 * MS).fall(1)]);
    bed.run(2500 * MS, always_up);
    let before = bed.sets[0].snapshot().generation();
    // Every check times out at the same instant.
    let now = bed.now;
    let silent = move |at: Instant, _| (now + 951 * MS - at, Err(timeout_failure()));
    bed.run(950 * MS, silent);
    for (_, id, result) in std::mem::take(&mut bed.in_flight) {
        bed.core.handle_result(id, result, bed.now);
    }
    bed.core.poll(bed.now);
    assert_eq!(bed.sets[0].snapshot().generation(), before + 1);
    let statuses = bed.sets[0].statuses();
    let down = statuses.iter().filter(|status| status.state == BackendState::Down).count();
    assert!(down > 90, "{down} backends are down");
}

#[test]
fn publication_is_tried_again_after_a_scheduler_refused_it() {
    use crate::scheduler::{CompileError, Picker, Scheduler};
    #[derive(Debug)]
    struct RefusingScheduler(std::sync::atomic::AtomicBool);
    impl Scheduler for RefusingScheduler {
        fn name(&self) -> &str {
            "refusing"
        }
        fn compile(
            &self,
            members: &crate::backend::Members,
            previous: Option<&dyn Picker>,
        ) -> Result<Box<dyn Picker>, CompileError> {
            if self.0.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(CompileError::Other("refused by the test".into()));
            }
            crate::scheduler::RoundRobin.compile(members, previous)
        }
    }
    let mut bed = MonitorTestBed::new();
    bed.watch([1], &[checks().fall(1)]);
    let scheduler = Arc::new(RefusingScheduler(false.into()));
    let balancer =
        Balancer::new(&bed.sets[0], Arc::clone(&scheduler)).expect("scheduler accepts the set");
    bed.run(2500 * MS, always_up);
    scheduler.0.store(true, std::sync::atomic::Ordering::SeqCst);
    bed.run(2500 * MS, |_, _| (MS, Err(refused_failure())));
    assert_eq!(bed.state(0, 1), BackendState::Eligible);
    let mut refusals = 0;
    while let Some(Ok(event)) = bed.events.try_next() {
        refusals += u32::from(matches!(event.kind, HealthEventKind::PublishRefused { .. }));
    }
    assert!((2..=3).contains(&refusals), "{refusals} events, expected one a second");
    scheduler.0.store(false, std::sync::atomic::Ordering::SeqCst);
    bed.run(1000 * MS, |_, _| (MS, Err(refused_failure())));
    assert_eq!(bed.state(0, 1), BackendState::Down);
    drop(balancer);
}

#[test]
fn agent_overrides_stay_and_warnings_are_sent_once() {
    use crate::backend::AgentWeight;
    let mut bed = MonitorTestBed::new();
    bed.watch([1], &[checks()]);
    bed.sets[0].set_weight(&id(1), 10).expect("member of the set");
    let weight = |percent| AgentOverride {
        weight: Some(AgentWeight::Percent(percent)),
        ..AgentOverride::default()
    };
    let half = CheckReport::up().with_agent_override(weight(50)).with_warning("expires in 3 days");
    bed.run(5500 * MS, |_, _| (MS, Ok(half.clone())));
    assert_eq!(bed.sets[0].statuses()[0].effective_weight, 5);
    bed.run(5000 * MS, always_up);
    assert_eq!(
        bed.sets[0].statuses()[0].effective_weight,
        5,
        "a report without an override changes nothing"
    );
    bed.run(1000 * MS, |_, _| (MS, Ok(CheckReport::up().with_agent_override(weight(100)))));
    assert_eq!(bed.sets[0].statuses()[0].effective_weight, 10);
    let events = std::iter::from_fn(|| bed.events.try_next()).filter_map(Result::ok);
    let is_warning = |event: &HealthEvent| matches!(event.kind, HealthEventKind::Warning { .. });
    assert_eq!(events.filter(is_warning).count(), 1, "one event for an unchanged warning");
}

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
