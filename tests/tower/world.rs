//! Instances whose readiness a test sets, and sets of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

pub(crate) use lvs::scheduler::RoundRobin;
pub(crate) use lvs::tower::{Balance, BalanceError, ReadyFirst};
pub(crate) use lvs::{BackendSet, Balancer, Health, PickError, Spec};
use tokio_test::task::Spawn;
pub(crate) use tokio_test::{assert_pending, assert_ready_ok};
pub(crate) use tower::{BoxError, Service, ServiceExt};

/// What `poll_ready` of an instance returns: ready, pending or an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Readiness {
    Ready,
    Busy,
    Broken,
}

/// A service that answers with its name, at once or when the test releases its answers.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) name: &'static str,
    state: Arc<Mutex<State>>,
    pub(crate) calls: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct State {
    readiness: Readiness,
    /// Whether answers are held back.
    held: bool,
    wakers: Vec<Waker>,
}

impl Instance {
    pub(crate) fn new(name: &'static str) -> Self {
        let state = State { readiness: Readiness::Ready, held: false, wakers: Vec::new() };
        Self { name, state: Arc::new(Mutex::new(state)), calls: Arc::default() }
    }

    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.change(|state| state.readiness = readiness);
    }

    /// Holds answers back, or releases them.
    pub(crate) fn hold(&self, held: bool) {
        self.change(|state| state.held = held);
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().expect("no panic");
        change(&mut state);
        state.wakers.drain(..).for_each(Waker::wake);
    }
}

impl<Req> Service<Req> for Instance {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut state = self.state.lock().expect("no panic");
        match state.readiness {
            Readiness::Ready => Poll::Ready(Ok(())),
            Readiness::Broken => Poll::Ready(Err(format!("{} is broken", self.name).into())),
            Readiness::Busy => {
                state.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn call(&mut self, _: Req) -> Answer {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Answer(self.clone())
    }
}

pub(crate) struct Answer(Instance);

impl Future for Answer {
    type Output = Result<&'static str, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.state.lock().expect("no panic");
        if state.held {
            state.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.0.name))
    }
}

/// Creates a set of instances with these names; round robin picks the first one first.
pub(crate) fn set_of<const N: usize>(
    names: [&'static str; N],
) -> (BackendSet<Instance>, [Instance; N]) {
    let set = BackendSet::new();
    let instances = names.map(Instance::new);
    for instance in instances.iter().rev() {
        set.insert(Spec::new(instance.name, instance.clone())).expect("a new name");
    }
    (set, instances)
}

pub(crate) fn round_robin(set: &BackendSet<Instance>) -> Balancer<Instance> {
    Balancer::new(set, RoundRobin::new()).expect("rr accepts any set")
}

/// Returns the number of requests that the set's backends count.
pub(crate) fn load<T>(set: &BackendSet<T>) -> u32 {
    set.snapshot().backends().iter().map(|backend| backend.load().total()).sum()
}

/// Returns the balancer's own error of a request.
pub(crate) fn balance_error<T: std::fmt::Debug>(result: Result<T, BoxError>) -> BalanceError {
    let error = result.expect_err("the request fails");
    error.downcast_ref::<BalanceError>().expect("an error of the balancer").clone()
}

/// Polls whether a service is ready for a request `()`.
pub(crate) fn poll_ready<S: Service<()> + Unpin>(
    service: &mut Spawn<S>,
) -> Poll<Result<(), S::Error>> {
    service.enter(|cx, service| service.get_mut().poll_ready(cx))
}

/// Waits until a service is ready.
pub(crate) async fn ready<S: Service<(), Error = BoxError>>(service: &mut S) -> &mut S {
    ServiceExt::<()>::ready(service).await.expect("poll_ready of a balancer does not fail")
}
