//! What checkers and traffic make of a set: advice, ejection, trial, panic, quorum.

use std::time::{Duration, Instant};

use lvs::backend::{
    AgentOverride, AgentWeight, BackendAdminState, BackendState, FailMode, OutlierState, Quorum,
};
use lvs::scheduler::{Maglev, PowerOfTwoChoices, RoundRobin};
use lvs::{
    BackendId, BackendSet, Balancer, Flow, Health, Limits, Outcome, PickError, SlowStart, Spec,
};

fn set_of(names: &[&str]) -> BackendSet<()> {
    let set = BackendSet::new();
    names.iter().for_each(|name| drop(set.insert(Spec::new(*name, ())).expect("a new name")));
    set
}

fn state(set: &BackendSet<()>, name: &str) -> BackendState {
    let status = set.statuses();
    status.iter().find(|it| it.id.as_str() == name).expect("in the set").state
}

fn eject(set: &BackendSet<()>, name: &str, outlier_state: OutlierState) {
    set.edit(|edit| edit.set_outlier_state(&name.into(), outlier_state, "for the test"))
        .expect("the backend is in the set");
}

fn down(set: &BackendSet<()>, names: &[&str]) {
    set.edit(|edit| {
        names
            .iter()
            .try_for_each(|it| edit.set_health_with_reason(&(*it).into(), Health::Down, "dead"))
    })
    .expect("the backends are in the set");
}

#[test]
fn an_agent_override_applies_over_the_configuration_until_it_is_removed() {
    let set = set_of(&["a"]);
    let a = BackendId::from("a");
    set.set_weight(&a, 8).expect("a weight");
    let half = AgentOverride {
        weight: Some(AgentWeight::Percent(50)),
        max_connections: Some(1),
        admin: None,
    };
    set.edit(|edit| edit.set_agent_override(&a, half)).expect("known");
    let status = set.statuses().remove(0);
    assert_eq!((status.weight, status.effective_weight, status.limits), (8, 4, Limits::NONE));
    assert_eq!(set.snapshot().members()[0].limits(), Limits::new(1));

    // The agent's override applies to the operator's new weight.
    set.set_weight(&a, 20).expect("a weight");
    assert_eq!(set.statuses()[0].effective_weight, 10);

    let drain = AgentOverride { admin: Some(BackendAdminState::Draining), ..half };
    set.edit(|edit| edit.set_agent_override(&a, drain)).expect("known");
    assert_eq!(state(&set, "a"), BackendState::Draining);
    set.disable(&a).expect("known");
    assert_eq!(
        state(&set, "a"),
        BackendState::Disabled,
        "the operator's `disabled` takes precedence over the agent's drain"
    );
    set.enable(&a).expect("known");
    set.edit(|edit| edit.set_agent_override(&a, AgentOverride::default())).expect("known");
    assert_eq!(
        (state(&set, "a"), set.statuses()[0].effective_weight),
        (BackendState::Eligible, 20)
    );
}

#[test]
fn an_agent_weight_of_0_moves_no_key_of_other_backends() {
    let set = set_of(&["a", "b", "c"]);
    let balancer = Balancer::new(&set, Maglev::new()).expect("a table");
    let home =
        |key| balancer.pick(&Flow::new().key(key)).expect("an eligible backend").id().clone();
    let before: Vec<_> = (0..500).map(home).collect();
    let none = AgentOverride { weight: Some(AgentWeight::Exactly(0)), ..AgentOverride::default() };
    set.edit(|edit| edit.set_agent_override(&"b".into(), none)).expect("known");
    assert_eq!(state(&set, "b"), BackendState::Quiesced);
    for (key, before) in (0..500).zip(&before).filter(|(_, before)| before.as_str() != "b") {
        assert_eq!(&home(key), before);
    }
}

#[test]
fn an_ejected_backend_gets_no_lease_and_a_backend_on_trial_one_at_a_time() {
    let set = set_of(&["a", "b"]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("a rule");
    let old = balancer.lease_by_id(&"a".into()).expect("eligible");
    eject(&set, "a", OutlierState::Ejected);
    assert_eq!(state(&set, "a"), BackendState::Ejected);
    let picks = |n| -> Vec<_> { (0..n).map(|_| balancer.pick(&Flow::new())).collect() };
    assert!(picks(9).iter().flatten().all(|lease| lease.id().as_str() == "b"));

    eject(&set, "a", OutlierState::OnTrial);
    let leases = picks(9);
    let trial = leases.into_iter().flatten().filter(|lease| lease.id().as_str() == "a");
    let mut trial: Vec<_> = trial.collect();
    assert_eq!(trial.len(), 1, "an older lease does not count as the trial");
    // A trial that was cancelled has no result: the trial slot is free again.
    drop(trial.pop());
    let mut trial: Vec<_> =
        picks(9).into_iter().flatten().filter(|lease| lease.id().as_str() == "a").collect();
    assert_eq!(trial.len(), 1);
    trial.remove(0).complete(Outcome::Ok);
    assert!(
        picks(9).iter().flatten().all(|lease| lease.id().as_str() == "b"),
        "the trial has ended: the backend gets no lease until the outlier state is set"
    );
    eject(&set, "a", OutlierState::Good);
    assert_eq!(picks(10).iter().flatten().filter(|it| it.id().as_str() == "a").count(), 5);
    drop(old);
    let load = set.snapshot().find(&"a".into()).expect("there").load();
    assert_eq!(load.total(), 0, "all leases are returned");
}

#[test]
fn a_trial_keeps_within_the_backends_own_limit_and_survives_going_inactive() {
    let set = set_of(&["a"]);
    let balancer = Balancer::new(&set, PowerOfTwoChoices::new()).expect("a rule");
    set.set_limits(&"a".into(), Limits::new(1)).expect("sound");
    let old = balancer.pick(&Flow::new()).expect("room");
    eject(&set, "a", OutlierState::OnTrial);
    assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::AllAtLimit);
    old.complete(Outcome::Ok);
    let mut lease = balancer.pick(&Flow::new()).expect("its trial");
    lease.set_active(false);
    lease.complete(Outcome::Cancelled);
    assert!(balancer.pick(&Flow::new()).is_ok(), "the trial slot is free again");
}

#[test]
fn a_backend_ramps_after_an_ejection_and_its_own_ramp_overrides_that_of_the_set() {
    let set = set_of(&["a", "b"]);
    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    let start = Instant::now();
    let at = |secs| start + Duration::from_secs(secs);
    set.set_slow_start(Some(SlowStart::new(Duration::from_secs(100))));
    assert_eq!(set.advance_slow_start(start).expect("rr takes anything"), None);
    eject(&set, "a", OutlierState::Ejected);
    eject(&set, "a", OutlierState::OnTrial);
    let percent =
        || set.statuses().iter().find(|it| it.id.as_str() == "a").expect("a").slow_start_percent;
    assert_eq!(percent(), 100, "a trial is no ramp");
    eject(&set, "a", OutlierState::Good);
    assert_eq!(percent(), 10);
    set.edit(|edit| edit.start_slow_start(&"a".into(), SlowStart::new(Duration::from_secs(20))))
        .expect("known");
    assert_eq!(set.advance_slow_start(at(1)).expect("a share"), Some(at(2)));
    set.advance_slow_start(at(11)).expect("a share");
    assert_eq!(percent(), 50);
    assert_eq!(set.advance_slow_start(at(21)).expect("a share"), None);
    assert_eq!(percent(), 100);
}

#[test]
fn each_fail_mode_selects_its_backends_when_too_few_are_healthy() {
    let set = set_of(&["a", "b", "c", "d"]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("a rule");
    set.set_weight(&"d".into(), 0).expect("known");
    let names = || -> String {
        let picks = (0..9).filter_map(|_| balancer.pick(&Flow::new()).ok());
        let mut names: Vec<_> = picks.map(|lease| lease.id().to_string()).collect();
        names.sort();
        names.dedup();
        names.concat()
    };
    down(&set, &["a"]);
    eject(&set, "b", OutlierState::Ejected);
    assert_eq!(names(), "c");
    set.set_fail_mode(FailMode::PanicBelow(34)).expect("rr takes anything");
    assert_eq!(
        (names().as_str(), set.snapshot().is_panicking()),
        ("abc", true),
        "1 of 3 is healthy"
    );
    assert_eq!(state(&set, "a"), BackendState::Eligible);
    assert_eq!(set.statuses().iter().filter(|it| it.health == Health::Down).count(), 1);
    set.set_fail_mode(FailMode::PanicBelow(33)).expect("rr takes anything");
    assert_eq!((names().as_str(), set.snapshot().is_panicking()), ("c", false));

    down(&set, &["c"]);
    set.set_fail_mode(FailMode::Closed).expect("rr takes anything");
    assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::AllDown);
    set.set_fail_mode(FailMode::Open).expect("rr takes anything");
    assert_eq!(names(), "abc", "a quiesced backend is not used");
    set.disable(&"a".into()).expect("known");
    assert_eq!(names(), "bc", "a disabled backend is not used");
}

#[test]
fn a_lost_quorum_closes_the_set_and_is_regained_with_hysteresis() {
    let set = set_of(&["a", "b", "c", "d"]);
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("a rule");
    set.set_fail_mode(FailMode::PanicBelow(90)).expect("rr takes anything");
    set.set_quorum(Some(Quorum::new(2).with_hysteresis(1))).expect("rr takes anything");
    down(&set, &["a", "b"]);
    assert!(set.snapshot().has_quorum() && balancer.pick(&Flow::new()).is_ok());
    down(&set, &["c", "d"]);
    assert!(!set.snapshot().has_quorum());
    assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::AllDown);
    let up = |name: &str| set.set_health(&name.into(), Health::Up).expect("known");
    up("a");
    up("b");
    assert_eq!(state(&set, "a"), BackendState::Withheld);
    assert_eq!(balancer.pick(&Flow::new()).unwrap_err(), PickError::NoQuorum);
    assert!(!set.snapshot().is_panicking());
    up("c");
    assert!(set.snapshot().has_quorum() && balancer.pick(&Flow::new()).is_ok());

    set.set_quorum(Some(Quorum::new(9).with_advisory(true))).expect("rr takes anything");
    assert!(
        !set.snapshot().has_quorum() && balancer.pick(&Flow::new()).is_ok(),
        "an advisory quorum is only reported"
    );
}

#[test]
fn the_reason_stays_with_the_state() {
    let set = set_of(&["a"]);
    let reason = || set.statuses()[0].reason.as_deref().map(str::to_owned);
    assert_eq!(reason(), None);
    down(&set, &["a"]);
    eject(&set, "a", OutlierState::Ejected);
    assert_eq!((state(&set, "a"), reason().as_deref()), (BackendState::Down, Some("dead")));
    set.set_health(&"a".into(), Health::Up).expect("known");
    assert_eq!(
        (state(&set, "a"), reason().as_deref()),
        (BackendState::Ejected, Some("for the test"))
    );
    assert_eq!(set.snapshot().reason(0).map(|reason| &**reason), Some("for the test"));
}

#[test]
fn an_edit_of_many_backends_finds_backends_by_name() {
    let set = BackendSet::new();
    set.edit(|edit| {
        (0..40).try_for_each(|i| edit.insert(Spec::new(format!("s{i}"), ())).map(drop))?;
        (0..40).step_by(2).try_for_each(|i| edit.remove(&format!("s{i}").into()).map(drop))?;
        edit.insert(Spec::new("s0", ()))?;
        assert!(edit.remove(&"s2".into()).is_err());
        edit.set_weight(&"s0".into(), 7)?;
        edit.set_weight(&"s39".into(), 9)
    })
    .expect("all are known");
    let weights =
        |name: &str| set.statuses().iter().find(|s| s.id.as_str() == name).map(|s| s.weight);
    assert_eq!(
        (weights("s0"), weights("s39"), set.snapshot().members().len()),
        (Some(7), Some(9), 21)
    );
}
