//! What a set, and the balancers made from it, promise to their users.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs::backend::{BackendAdminState, BackendState, MAX_WEIGHT, Members};
use lvs::scheduler::{
    CompileError, Picker, PowerOfTwoChoices, PriorityTiers, Rng, RoundRobin, Scheduler,
    WeightedFailover,
};
use lvs::{
    BackendId, BackendSet, Balancer, Flow, Health, Lease, Limits, Outcome, PickError, SetError,
    SlowStart, Spec,
};

fn id(name: &str) -> BackendId {
    BackendId::from(name)
}

/// A set whose list reads `names`: the last is inserted first.
fn set_of(names: &str) -> BackendSet<u32> {
    let set = BackendSet::new();
    for (target, name) in names.chars().rev().enumerate() {
        set.insert(Spec::new(name.to_string(), target as u32)).expect("new");
    }
    set
}

fn round_robin(set: &BackendSet<u32>) -> Balancer<u32> {
    Balancer::new(set, RoundRobin::new()).expect("takes any list")
}

fn pick(balancer: &Balancer<u32>) -> Lease<u32> {
    balancer.pick(&Flow::new()).expect("an eligible backend")
}

fn picks(balancer: &Balancer<u32>, n: usize) -> String {
    (0..n).map(|_| pick(balancer).id().to_string()).collect()
}

fn pick_error(balancer: &Balancer<u32>) -> PickError {
    balancer.pick(&Flow::new()).expect_err("no eligible backend")
}

fn listed(members: &Members) -> Vec<(&str, u32)> {
    members.iter().map(|m| (m.id().as_str(), m.weight())).collect()
}

fn shares(set: &BackendSet<u32>) -> Vec<u32> {
    set.snapshot().members().iter().map(|m| m.share()).collect()
}

fn start() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

/// Works with a list of at most so many members.
#[derive(Debug)]
struct AtMost(usize);

impl Scheduler for AtMost {
    fn name(&self) -> &str {
        "at-most"
    }

    fn compile(
        &self,
        members: &Members,
        previous: Option<&dyn Picker>,
    ) -> Result<Box<dyn Picker>, CompileError> {
        if members.len() > self.0 {
            return Err(CompileError::TooManyMembers { members: members.len(), max: self.0 });
        }
        RoundRobin::new().compile(members, previous)
    }
}

#[test]
fn a_refused_change_names_the_backend_and_the_value() {
    let set = set_of("a");
    let error_text = |answer: Result<(), SetError>| answer.expect_err("refused").to_string();
    assert_eq!(
        error_text(set.insert(Spec::new("a", 0)).map(drop)),
        "backend a is already in the set"
    );
    assert_eq!(error_text(set.remove(&id("x")).map(drop)), "backend x is not in the set");
    assert_eq!(error_text(set.set_weight(&id("x"), 1)), "backend x is not in the set");
    assert_eq!(
        error_text(set.set_target(&id("x"), 1, None).map(drop)),
        "backend x is not in the set"
    );
    assert_eq!(error_text(set.drain(&id("x"))), "backend x is not in the set");
    assert_eq!(error_text(set.set_health(&id("x"), Health::Up)), "backend x is not in the set");
    assert_eq!(
        error_text(set.set_weight(&id("a"), MAX_WEIGHT + 1)),
        "backend a: weight is 65536, must be from 0 to 65535"
    );
    assert_eq!(
        error_text(set.insert(Spec::new("b", 0).weight(u32::MAX)).map(drop)),
        "backend b: weight is 4294967295, must be from 0 to 65535"
    );
    assert_eq!(
        error_text(set.set_limits(&id("a"), Limits::new(3).with_resume_below(4))),
        "backend a: resume_below is 4, must be from 0 to 3"
    );
    assert_eq!(
        error_text(set.insert(Spec::new("b", 0).limits(Limits::new(u32::MAX))).map(drop)),
        "backend b: max_connections is 4294967295, must be from 0 to 1073741824"
    );
    assert_eq!(listed(set.snapshot().members()), [("a", 1)]);
}

#[test]
fn a_backend_is_removed_once_and_its_name_is_free_again() {
    let set = set_of("ab");
    let balancer = round_robin(&set);
    let lease = pick(&balancer);
    assert_eq!(lease.id(), &id("a"));

    let removed = set.remove(&id("a")).expect("there");
    assert!(
        matches!(set.remove(&id("a")), Err(SetError::UnknownBackend { id }) if id.as_str() == "a")
    );
    assert_eq!(removed.load().active, 1, "its lease goes on");

    let again = set.insert(Spec::new("a", 9)).expect("free");
    assert_eq!((again.load().total(), *again.target()), (0, 9));
    lease.complete(Outcome::Ok);
    assert_eq!((removed.load().total(), removed.outcomes().ok), (0, 1));
    assert_eq!(again.outcomes().total(), 0, "the old account is not the new one's");
}

#[test]
fn an_edit_is_made_as_a_whole_or_not_at_all() {
    let set = set_of("ab");
    let balancer = round_robin(&set);
    let before = set.snapshot();
    let answer: Result<(), _> = set.edit(|edit| {
        edit.insert(Spec::new("c", 7))?;
        edit.set_weight(&id("a"), 5)?;
        edit.set_limits(&id("a"), Limits::new(1))?;
        edit.set_admin(&id("b"), BackendAdminState::Disabled)?;
        edit.remove(&id("unknown")).map(drop)
    });
    assert!(matches!(answer, Err(SetError::UnknownBackend { id }) if id.as_str() == "unknown"));
    assert_eq!(set.snapshot().generation(), before.generation());
    assert_eq!(listed(set.snapshot().members()), [("a", 1), ("b", 1)]);
    let held: Vec<_> = (0..4).map(|_| pick(&balancer)).collect();
    assert_eq!(held.len(), 4, "the limit was not set either");

    set.edit(|edit| {
        edit.insert(Spec::new("c", 7))?;
        edit.set_weight(&id("a"), 5)?;
        edit.set_tier(&id("b"), 2)
    })
    .expect("sound");
    assert_eq!(set.snapshot().generation(), before.generation() + 1, "one publication");
    assert_eq!(listed(set.snapshot().members()), [("c", 1), ("a", 5), ("b", 1)]);
}

#[test]
fn an_edit_that_changes_nothing_is_not_published() {
    let set = set_of("a");
    let before = set.snapshot().generation();
    set.enable(&id("a")).expect("known");
    set.set_health(&id("a"), Health::Up).expect("known");
    set.set_limits(&id("a"), Limits::NONE).expect("known");
    assert_eq!(set.snapshot().generation(), before);
    set.set_weight(&id("a"), 1).expect("known");
    assert_eq!(set.snapshot().generation(), before + 1, "setting a weight always counts");
}

#[test]
fn a_scheduler_that_refuses_leaves_the_set_and_all_balancers_as_they_were() {
    let set = set_of("ab");
    let lenient = round_robin(&set);
    let strict = Balancer::new(&set, AtMost(2)).expect("two are not too many");
    assert_eq!(picks(&lenient, 1), "a");

    let error = set.insert(Spec::new("c", 0)).expect_err("three are");
    let text = "scheduler at-most cannot use the set: \
                the set has 3 backends, but the scheduler supports at most 2";
    assert_eq!(error.to_string(), text);
    let source = std::error::Error::source(&error).expect("the scheduler's error is the source");
    assert_eq!(source.to_string(), "the set has 3 backends, but the scheduler supports at most 2");

    assert_eq!(listed(set.snapshot().members()), [("a", 1), ("b", 1)]);
    for balancer in [&lenient, &strict] {
        assert_eq!(balancer.snapshot().generation(), set.snapshot().generation());
    }
    assert_eq!(picks(&lenient, 3), "bab", "round robin continues at its position");
    assert!(matches!(Balancer::new(&set, AtMost(1)), Err(SetError::Scheduler { .. })));

    drop(strict);
    set.insert(Spec::new("c", 0)).expect("the refusing balancer is dropped");
    assert_eq!(lenient.snapshot().members().len(), 3);
}

#[test]
fn counters_survive_another_weight_another_target_and_another_state() {
    let set = set_of("a");
    let balancer = round_robin(&set);
    let now = start();
    pick(&balancer).complete_with_latency(Outcome::Ok, Duration::from_millis(20), now);
    pick(&balancer).complete(Outcome::Timeout);
    let held = pick(&balancer);

    set.set_weight(&id("a"), 9).expect("known");
    set.disable(&id("a")).expect("known");
    set.enable(&id("a")).expect("known");
    let address: SocketAddr = "10.0.0.1:80".parse().expect("an address");
    let renewed = set.set_target(&id("a"), 77, Some(address)).expect("known");

    assert_eq!(*renewed.target(), 77);
    assert_eq!((renewed.outcomes().ok, renewed.outcomes().timeout), (1, 1));
    assert_eq!(renewed.estimate(now).latency, Some(Duration::from_millis(20)));
    assert_eq!(renewed.load().active, 1);
    assert_eq!(set.snapshot().members()[0].address(), Some(address));

    assert_eq!(*held.target(), 0, "a lease keeps the target it was given");
    assert_eq!(*pick(&balancer).target(), 77);
    drop(held);
    assert_eq!(renewed.load().active, 0);
    assert_eq!(renewed.outcomes().cancelled, 2);
}

#[test]
fn a_failed_pick_returns_the_reason() {
    let set = set_of("");
    let balancer = round_robin(&set);
    assert_eq!(pick_error(&balancer), PickError::NoBackends);
    set.insert(Spec::new("a", 0).weight(0)).expect("new");
    assert_eq!(pick_error(&balancer), PickError::AllQuiesced);
    set.insert(Spec::new("b", 0).admin(BackendAdminState::Draining)).expect("new");
    set.insert(Spec::new("c", 0).admin(BackendAdminState::Disabled).health(Health::Down))
        .expect("new");
    assert_eq!(pick_error(&balancer), PickError::AllQuiesced);
    set.insert(Spec::new("d", 0).health(Health::Down)).expect("new");
    assert_eq!(pick_error(&balancer), PickError::AllDown);
    set.set_weight(&id("d"), 0).expect("known");
    assert_eq!(
        pick_error(&balancer),
        PickError::AllQuiesced,
        "d has weight 0, so its health does not matter"
    );
    set.insert(Spec::new("e", 0).limits(Limits::new(1))).expect("new");
    let lease = pick(&balancer);
    assert_eq!(pick_error(&balancer), PickError::AllAtLimit);
    let flow = Flow::new().excluding(lease.backend());
    drop(lease);
    assert_eq!(balancer.pick(&flow).expect_err("tried"), PickError::AllTried);
    let states: Vec<BackendState> = set.snapshot().members().iter().map(|m| m.state()).collect();
    use BackendState::{Disabled, Down, Draining, Eligible, Quiesced};
    assert_eq!(states, [Eligible, Down, Disabled, Draining, Quiesced]);
}

#[test]
fn the_scheduler_picks_when_all_backends_are_down_and_not_when_all_are_quiesced() {
    let set = set_of("ab");
    let balancer =
        Balancer::new(&set, PriorityTiers::new(RoundRobin::new())).expect("takes any list");
    set.set_health(&id("a"), Health::Down).expect("known");
    set.set_health(&id("b"), Health::Down).expect("known");
    assert_eq!(picks(&balancer, 2), "ab", "in panic the scheduler picks backends that are down");
    set.set_limits(&id("a"), Limits::new(1)).expect("sound");
    set.disable(&id("b")).expect("known");
    let lease = pick(&balancer);
    assert_eq!(pick_error(&balancer), PickError::AllDown, "limits hold in panic as well");
    drop(lease);
    set.set_weight(&id("a"), 0).expect("known");
    assert_eq!(pick_error(&balancer), PickError::AllQuiesced);
}

#[test]
fn a_full_backend_gets_no_work_until_it_is_below_resume_below() {
    let set = set_of("ab");
    let balancer = round_robin(&set);
    set.set_limits(&id("a"), Limits::new(4).with_resume_below(2)).expect("sound");
    let mut held: Vec<_> = (0..8).map(|_| pick(&balancer)).collect();
    assert_eq!(picks(&balancer, 2), "bb");

    held.retain(|lease| lease.id() == &id("a"));
    held[0].set_active(false);
    assert_eq!(held[0].backend().load().total(), 4, "inactive ones count");
    held.truncate(2);
    assert_eq!(picks(&balancer, 2), "bb", "2 is not below 2");
    held.truncate(1);
    assert_eq!(picks(&balancer, 2), "ab");

    set.set_limits(&id("a"), Limits::new(1)).expect("sound");
    assert_eq!(picks(&balancer, 2), "bb", "a lower limit counts at once");
    set.set_limits(&id("a"), Limits::NONE).expect("sound");
    assert_eq!(picks(&balancer, 2), "ab");
}

#[test]
fn backends_inserted_together_have_no_slow_start() {
    let set = set_of("ab");
    set.set_slow_start(Some(SlowStart::new(100 * SECOND)));
    set.insert(Spec::new("c", 0).weight(3)).expect("new");
    assert_eq!(shares(&set), [3, 1, 1]);
    assert_eq!(
        set.advance_slow_start(start()).expect("rr takes all"),
        None,
        "no backend is in slow start"
    );
}

#[test]
fn the_share_of_a_new_backend_grows_during_slow_start() {
    let set = set_of("a");
    set.set_slow_start(Some(SlowStart::new(100 * SECOND)));
    let t0 = start();
    let tick = |seconds| {
        let next =
            set.advance_slow_start(t0 + seconds * SECOND).expect("the scheduler accepts the set");
        next.map(|next| (next - t0).as_secs())
    };
    tick(0);
    set.insert(Spec::new("b", 0).weight(2)).expect("new");
    assert_eq!(shares(&set), [20, 100], "10 % of weight 2 against weight 1");
    assert_eq!(tick(7), Some(12), "slow start begins at the first tick after the insert");
    assert_eq!((tick(57), shares(&set)), (Some(62), vec![100, 100]));
    assert_eq!((tick(82), shares(&set)), (Some(87), vec![150, 100]));
    assert_eq!((tick(107), shares(&set)), (None, vec![2, 1]));

    set.set_health(&id("a"), Health::Down).expect("known");
    assert_eq!((tick(200), shares(&set)), (None, vec![2, 0]));
    set.set_health(&id("a"), Health::Up).expect("known");
    assert_eq!(shares(&set), [200, 10], "a backend that is up again starts slowly");
    assert_eq!(tick(201), Some(206));
    set.set_weight(&id("a"), 0).expect("known");
    assert_eq!(shares(&set), [200, 0]);
}

#[test]
fn aggression_sets_the_curve_of_slow_start() {
    let set = set_of("a");
    set.set_slow_start(Some(SlowStart::new(100 * SECOND).with_aggression(2.0).expect("above 0")));
    let t0 = start();
    set.advance_slow_start(t0).expect("the scheduler accepts the set");
    set.insert(Spec::new("b", 0)).expect("new");
    let share = |seconds| {
        set.advance_slow_start(t0 + seconds * SECOND).expect("the scheduler accepts the set");
        shares(&set)[0]
    };
    assert_eq!([0, 4, 25, 50, 81].map(share), [10, 20, 50, 70, 90]);
}

#[test]
fn without_slow_start_every_backend_has_its_full_share() {
    let set = set_of("a");
    set.set_slow_start(Some(SlowStart::new(100 * SECOND)));
    let t0 = start();
    set.advance_slow_start(t0).expect("the scheduler accepts the set");
    set.insert(Spec::new("b", 0)).expect("new");
    assert_eq!(shares(&set), [10, 100]);
    set.set_slow_start(None);
    assert_eq!(set.advance_slow_start(t0 + SECOND).expect("the scheduler accepts the set"), None);
    assert_eq!(shares(&set), [1, 1]);
}

#[test]
fn balancers_of_one_set_share_counts_but_not_positions() {
    let set = set_of("abc");
    let (first, second) = (round_robin(&set), round_robin(&set));
    let clone = first.clone();
    assert_eq!(picks(&first, 2), "ab");
    assert_eq!(picks(&clone, 1), "c", "a clone shares the position");
    assert_eq!(picks(&second, 1), "a");
    let fork = first.fork().expect("rr takes all");
    assert_eq!(picks(&fork, 2), "ab", "a fork has a position of its own");

    let held = (pick(&first), pick(&second), pick(&fork));
    let loads: Vec<_> = set.snapshot().backends().iter().map(|b| b.load().active).collect();
    assert_eq!(loads, [1, 1, 1]);
    drop(held);
    set.remove(&id("a")).expect("known");
    for balancer in [&first, &second, &fork] {
        assert_eq!(balancer.snapshot().members().len(), 2);
    }
}

#[test]
fn another_scheduler_starts_afresh_and_a_refused_one_changes_nothing() {
    let set = set_of("abc");
    let balancer = round_robin(&set);
    let held = pick(&balancer);
    let error = balancer.set_scheduler(AtMost(2)).expect_err("three are too many");
    assert!(matches!(error, SetError::Scheduler { scheduler, .. } if scheduler == "at-most"));
    assert_eq!(balancer.scheduler().name(), "rr");
    assert_eq!(picks(&balancer, 1), "b");
    balancer.set_scheduler(AtMost(3)).expect("fits");
    assert_eq!(balancer.scheduler().name(), "at-most");
    assert_eq!(picks(&balancer, 1), "a", "from the head of the list");
    assert_eq!(held.backend().load().active, 1);
    assert!(set.insert(Spec::new("d", 0)).is_err(), "the current scheduler refuses four backends");
}

#[test]
fn a_pick_by_name_passes_the_scheduler_and_the_limit_but_no_state() {
    let set = set_of("ab");
    let balancer = round_robin(&set);
    set.set_limits(&id("b"), Limits::new(1)).expect("sound");
    let first = balancer.lease_by_id(&id("b")).expect("eligible");
    let second = balancer.lease_by_id(&id("b")).expect("affinity is past limits");
    assert_eq!(second.backend().load().active, 2);
    assert_eq!(picks(&balancer, 2), "aa");
    drop((first, second));

    assert!(balancer.lease_by_id(&id("x")).is_none());
    set.set_weight(&id("b"), 0).expect("known");
    assert!(balancer.lease_by_id(&id("b")).is_none());
    set.set_weight(&id("b"), 1).expect("known");
    set.set_health(&id("b"), Health::Down).expect("known");
    assert!(balancer.lease_by_id(&id("b")).is_none());
}

#[test]
fn a_detached_lease_leaves_the_load_to_the_caller() {
    let set = set_of("a");
    let balancer = round_robin(&set);
    let backend = pick(&balancer).detach();
    assert_eq!((backend.load().active, backend.outcomes().total()), (1, 0));
    backend.set_load(3, 4);
    assert_eq!((backend.load().active, backend.load().inactive), (3, 4));
}

#[test]
fn a_lease_outlives_the_balancer_and_the_set() {
    let set = set_of("a");
    let lease = pick(&round_robin(&set));
    drop(set);
    let backend = lease.backend().clone();
    drop(lease);
    assert_eq!((backend.load().total(), backend.outcomes().cancelled), (0, 1));
}

#[test]
fn a_worker_sees_every_publication_and_counts_the_same_connections() {
    let set = BackendSet::new();
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("empty");
    let mut worker = balancer.worker(Rng::with_seed(1));
    assert_eq!(worker.pick(&Flow::new()).map(drop), Err(PickError::NoBackends));
    set.insert(Spec::new("a", 1)).expect("sound");
    let lease = worker.pick(&Flow::new()).expect("usable");
    assert_eq!((*lease.target(), lease.backend().load().active), (1, 1));
    set.insert(Spec::new("b", 2)).expect("sound");
    set.drain(&"a".into()).expect("known");
    assert_eq!(*worker.pick(&Flow::new()).expect("usable").target(), 2);
    balancer.set_scheduler(WeightedFailover::new()).expect("it takes any set");
    assert_eq!(*worker.pick(&Flow::new()).expect("usable").target(), 2);
    set.remove(&"b".into()).expect("known");
    assert_eq!(worker.pick(&Flow::new()).map(drop), Err(PickError::AllQuiesced));
}

#[test]
fn a_refreshed_worker_drops_removed_backends() {
    let set = BackendSet::new();
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("empty");
    let target = Arc::new(());
    set.insert(Spec::new("a", Arc::clone(&target))).expect("sound");
    let mut worker = balancer.worker(Rng::with_seed(1));
    set.remove(&"a".into()).expect("known");
    assert_eq!(Arc::strong_count(&target), 2, "the worker holds the plane it saw");
    worker.refresh();
    assert_eq!(Arc::strong_count(&target), 1);
}

fn active(set: &BackendSet<()>) -> u32 {
    set.snapshot().backends().iter().map(|backend| backend.load().total()).sum()
}

#[test]
fn counts_on_lanes_are_exact_wherever_a_lease_ends() {
    let set = BackendSet::with_counter_lanes(2);
    let balancer = Balancer::new(&set, PowerOfTwoChoices::new()).expect("empty");
    for name in ["a", "b", "c"] {
        set.insert(Spec::new(name, ())).expect("sound");
    }
    let mut workers = [balancer.worker(Rng::with_seed(1)), balancer.worker(Rng::with_seed(2))];
    let mut held = Vec::new();
    for i in 0..101 {
        held.push(workers[i % 2].pick(&Flow::new()).expect("usable"));
        held.push(balancer.pick(&Flow::new()).expect("usable"));
        assert_eq!(active(&set) as usize, held.len());
    }
    for lease in &mut held[..40] {
        lease.set_active(false);
        lease.set_active(true);
        lease.set_active(false);
    }
    assert_eq!(active(&set), 202);
    let inactive = set.snapshot().backends().iter().map(|b| b.load().inactive).sum::<u32>();
    assert_eq!(inactive, 40);
    let rest = held.split_off(60);
    std::thread::spawn(move || held.into_iter().for_each(|lease| lease.complete(Outcome::Ok)))
        .join()
        .expect("no panic");
    assert_eq!(active(&set), 142);
    drop(rest);
    let snapshot = set.snapshot();
    assert!(snapshot.backends().iter().all(|b| b.load() == Default::default()));
    let ended: Vec<_> = snapshot.backends().iter().map(|b| b.outcomes()).collect();
    assert_eq!(ended.iter().map(|o| o.ok).sum::<u64>(), 60);
    assert_eq!(ended.iter().map(|o| o.cancelled).sum::<u64>(), 142);
}

#[test]
fn a_limit_holds_over_all_lanes_and_when_it_is_set_later() {
    let set = BackendSet::with_counter_lanes(2);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("empty");
    set.insert(Spec::new("a", ())).expect("sound");
    let mut workers = [balancer.worker(Rng::with_seed(1)), balancer.worker(Rng::with_seed(2))];
    let mut held: Vec<_> =
        (0..7).map(|i| workers[i % 2].pick(&Flow::new()).expect("no limit")).collect();
    set.set_limits(&"a".into(), Limits::new(8).with_resume_below(8)).expect("sound");
    held.push(workers[0].pick(&Flow::new()).expect("one is left"));
    assert_eq!(workers[1].pick(&Flow::new()).map(drop), Err(PickError::AllAtLimit));
    held.pop();
    held.pop();
    held.extend((0..2).map(|i| workers[i].pick(&Flow::new()).expect("two are left")));
    assert_eq!(workers[0].pick(&Flow::new()).map(drop), Err(PickError::AllAtLimit));
    drop(held);
    assert_eq!(active(&set), 0);
}

#[test]
fn threads_that_pick_at_once_never_pass_a_limit_and_leave_nothing_behind() {
    for lanes in [0, 2] {
        let set = BackendSet::with_counter_lanes(lanes);
        let balancer = Balancer::new(&set, PowerOfTwoChoices::new()).expect("empty");
        for name in ["a", "b"] {
            set.insert(Spec::new(name, ()).limits(Limits::new(3))).expect("sound");
        }
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (mut worker, balancer) = (balancer.worker(Rng::with_seed(seed)), &balancer);
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let pair = (worker.pick(&Flow::new()), balancer.pick(&Flow::new()));
                        for lease in [&pair.0, &pair.1].into_iter().flatten() {
                            assert!(lease.backend().load().total() <= 3);
                        }
                    }
                });
            }
        });
        assert_eq!(active(&set), 0);
    }
}

#[test]
fn a_set_that_is_used_by_its_own_edit_says_so() {
    let set = BackendSet::new();
    set.insert(Spec::new("a", ())).expect("a new name");
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        set.edit(|edit| {
            edit.set_weight(&"a".into(), 7)?;
            set.drain(&"a".into())
        })
    }));
    let message = caught.expect_err("the set panics");
    let message = message.downcast_ref::<&str>().copied().unwrap_or_default();
    assert!(message.contains("a set is used by a closure that edits it"), "{message}");
    // Nothing has changed, and the set can be used.
    let snapshot = set.snapshot();
    assert_eq!(snapshot.members()[0].weight(), 1);
    set.set_weight(&"a".into(), 2).expect("it is there");
}

#[test]
fn a_backend_is_found_by_its_name_and_known_by_its_serial() {
    let set = BackendSet::new();
    assert!(set.is_empty());
    let first = set.insert(Spec::new("a", ())).expect("a new name");
    set.remove(first.id()).expect("it is there");
    assert!(set.get(first.id()).is_none());
    let second = set.insert(Spec::new("a", ())).expect("a new name");
    assert_eq!(set.len(), 1);
    assert_eq!(set.get(first.id()).map(|found| found.serial()), Some(second.serial()));
    assert_ne!(first.serial(), second.serial(), "another backend of the same name");
    assert_eq!(set.snapshot().members()[0].serial(), second.serial());
}
