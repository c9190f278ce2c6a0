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

mod ejection;
mod properties;
mod saving;

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
fn a_backend_with_checks_of_its_own_has_the_initial_health_of_those() {
    let plan = HealthPlan::new("test")
        .check(checks().init(InitialHealth::Down))
        .backend_checks(address(2), [checks().init(InitialHealth::Up)])
        .backend_checks(address(3), []);
    let mut bed = MonitorTestBed::new();
    let watch = bed.watch_with_plan([], plan);
    let states = |bed: &MonitorTestBed| [1, 2, 3].map(|n| bed.state(0, n));
    (1..=3).for_each(|n| bed.sets[0].insert(address(n)).map(drop).expect("a new name"));
    let expected = [BackendState::Down, BackendState::Eligible, BackendState::Eligible];
    assert_eq!(states(&bed), expected);
    bed.run(MS, |_, _| (100 * MS, Ok(CheckReport::up())));
    assert_eq!(states(&bed), expected, "no check has ended");
    bed.core.remove(watch);
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
