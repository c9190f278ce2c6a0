//! Which backend served: names in errors, in handles and in responses, and requests pinned to a backend.

use lvs::Limits;
use lvs::Outcome;
use lvs::tower::{Completion, InFlight, InstanceError, PinnedKey};
use tower::service_fn;

use crate::world::*;

#[tokio::test]
async fn errors_of_instances_name_their_backend_if_asked_for() {
    let set = BackendSet::new();
    let instance = service_fn(async |(): ()| Err::<(), _>(BoxError::from("out of cheese")));
    set.insert(Spec::new("a", instance)).expect("a new name");
    let balance = || Balance::new(Balancer::new(&set, RoundRobin::new()).expect("any set"));
    let error = balance().oneshot(()).await.expect_err("the instance fails");
    assert_eq!(error.to_string(), "out of cheese");
    let plain = |result: Result<&(), &BoxError>| match result {
        Err(error) if error.to_string() == "out of cheese" => Outcome::ConnectError,
        _ => Outcome::Ok,
    };
    let error = balance().classify(plain).name_errors().oneshot(()).await.expect_err("it fails");
    assert_eq!(error.to_string(), "backend a: out of cheese");
    let error = error.downcast::<InstanceError>().expect("an error of an instance");
    assert_eq!(error.backend.as_str(), "a");
    let outcomes = set.snapshot().backends()[0].outcomes();
    assert_eq!((outcomes.connect_error, outcomes.app_error), (1, 1), "as the instance returned it");
}

#[tokio::test]
async fn errors_of_poll_ready_name_their_backend_too() {
    let (set, [instance]) = set_of(["a"]);
    instance.set_readiness(Readiness::Broken);
    let error = Balance::new(round_robin(&set)).name_errors().oneshot(()).await;
    assert_eq!(error.expect_err("it is broken").to_string(), "backend a: a is broken");
    let service = ReadyFirst::new(round_robin(&set)).name_errors();
    let service = service.wait_timeout(std::time::Duration::ZERO);
    let error = service.oneshot(()).await.expect_err("it is broken");
    assert_eq!(error.to_string(), "backend a: a is broken");
}

/// Answers with the name of the backend.
#[derive(Clone)]
struct Named;

impl<S, Res> Completion<S, Res> for Named {
    type Response = String;

    fn outcome(&self, _: Result<&Res, &BoxError>) -> Outcome {
        Outcome::Ok
    }

    fn complete(
        self,
        result: Result<Res, BoxError>,
        outcome: Outcome,
        in_flight: InFlight<S>,
    ) -> Result<String, BoxError> {
        result?;
        let (id, backend) = (in_flight.id().cloned(), in_flight.backend().map(|b| b.id().clone()));
        assert_eq!(id, backend);
        in_flight.complete(outcome);
        Ok(id.expect("a backend has it").to_string())
    }
}

#[tokio::test]
async fn a_pinned_request_goes_to_its_backend_while_that_is_eligible() {
    let (set, [_, b, _]) = set_of(["a", "b", "c"]);
    let key = PinnedKey::new(|name: &&str| (!name.is_empty()).then(|| (*name).into()));
    let service = Balance::new(round_robin(&set)).key(key).completion(Named);
    let serves = async |name: &'static str| service.clone().oneshot(name).await.expect("answered");
    for _ in 0..4 {
        assert_eq!(serves("b").await, "b");
    }
    set.set_limits(&"b".into(), Limits::new(1)).expect("a member");
    let lease = service.balancer().lease_by_id(&"b".into()).expect("eligible");
    assert_eq!(serves("b").await, "b", "whatever its limit");
    drop(lease);
    // Round robin, as if nobody were pinned.
    let mut others = [serves("").await, serves("no such server").await, serves("").await];
    others.sort_unstable();
    assert_eq!(others, ["a", "b", "c"]);
    b.set_readiness(Readiness::Busy);
    assert_ne!(serves("b").await, "b", "busy: another serves");
    b.set_readiness(Readiness::Ready);
    set.drain(&"b".into()).expect("a member");
    assert_ne!(serves("b").await, "b", "no longer eligible");
    assert_eq!(load(&set), 0);
}
