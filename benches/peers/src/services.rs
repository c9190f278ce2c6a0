//! tower services: those of `lvs` and of tower.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use lvs::tower::{Balance, ReadyFirst};
use lvs::{BackendSet, Balancer, Spec};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::{Builder, Runtime};
use tower::balance::p2c;
use tower::buffer::Buffer;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use tower::{Service, ServiceExt};

use crate::schedulers::scheduler;
use crate::subject::{Subject, addresses};

/// Returns each service over `n` instances.
pub(crate) fn subjects(n: usize) -> Vec<Subject> {
    let shared = Balance::new(balancer("p2c", n));
    let on_lanes = BackendSet::with_counter_lanes(2);
    let on_lanes = Balance::new(over(on_lanes, "p2c", n, || Instantly(Arc::new(()))));
    // Services that share only the set, or nothing: the speed-up of two threads on this machine
    // with a shared set, and at most.
    let plain = |set| Balance::new(over(set, "p2c", n, || Instantly(7_u64)));
    let own = || plain(BackendSet::new());
    let (exact, with_lanes) = (own(), plain(BackendSet::with_counter_lanes(2)));
    let buffer = move |runtime: &Runtime| {
        let _within = runtime.enter();
        Buffer::new(p2c::Balance::new(towers(n)), 64)
    };
    vec![
        alone("tower p2c", n, p2c::Balance::new(towers(n))),
        alone("tower peak_ewma", n, p2c::Balance::new(towers_by_latency(n))),
        alone("lvs Balance p2c", n, shared.clone()),
        alone("lvs Balance maglev", n, Balance::new(balancer("maglev", n)).key(by_itself)),
        alone("lvs Balance peak_ewma", n, Balance::new(balancer("peak_ewma", n))),
        alone("lvs ReadyFirst p2c", n, ReadyFirst::new(balancer("p2c", n))),
        by_two_tasks("lvs Balance p2c", n, 1, |_| shared.clone()),
        by_two_tasks("tower Buffer p2c", n, 1, buffer),
        by_two_tasks("lvs Balance p2c", n, 2, |_| on_lanes),
        by_two_threads("lvs Balance p2c, a set each,", n, [own(), own()]),
        by_two_threads("lvs Balance p2c", n, [exact.clone(), exact]),
        by_two_threads("lvs Balance p2c with lanes", n, [with_lanes.clone(), with_lanes]),
        by_two_tasks("tower Buffer p2c", n, 2, buffer),
    ]
}

/// A service that is always ready and responds at once. A clone clones its content: mostly an
/// `Arc`, as with a client of hyper or tonic, whose counter all threads share.
#[derive(Clone)]
struct Instantly<T = Arc<()>>(T);

impl<T> Service<u64> for Instantly<T> {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Self::Future {
        black_box(&self.0);
        ready(Ok(()))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "a key is asked for by reference")]
fn by_itself(request: &u64) -> Option<u64> {
    Some(*request)
}

fn balancer(name: &str, n: usize) -> Balancer<Instantly> {
    over(BackendSet::new(), name, n, || Instantly(Arc::default()))
}

fn over<S: Send + Sync + 'static>(
    set: BackendSet<S>,
    name: &str,
    n: usize,
    instance: impl Fn() -> S,
) -> Balancer<S> {
    set.edit(|edit| {
        addresses(n).try_for_each(|address| {
            edit.insert(Spec::new(address.to_string(), instance())).map(drop)
        })
    })
    .expect("a sound set");
    Balancer::new(&set, scheduler(name)).expect("every rule takes this set")
}

type Towers<S> = ServiceList<Vec<S>>;

fn towers(n: usize) -> Towers<PendingRequests<Instantly>> {
    let service = |_| PendingRequests::new(Instantly(Arc::new(())), CompleteOnResponse::default());
    ServiceList::new::<u64>((0..n).map(service).collect())
}

fn towers_by_latency(n: usize) -> Towers<PeakEwma<Instantly>> {
    // The numbers of its documentation.
    let (rtt, decay) = (Duration::from_millis(30), 10e9);
    let service =
        |_| PeakEwma::new(Instantly(Arc::new(())), rtt, decay, CompleteOnResponse::default());
    ServiceList::new::<u64>((0..n).map(service).collect())
}

fn drive<S: Service<u64, Response = ()>>(service: &mut S, steps: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    for i in 0..steps {
        assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
        let answer = pin!(service.call(i));
        assert!(matches!(black_box(answer).poll(&mut cx), Poll::Ready(Ok(()))));
    }
}

fn alone<S>(name: &str, n: usize, mut service: S) -> Subject
where
    S: Service<u64, Response = ()> + 'static,
{
    Subject::new(name, n, move |steps| drive(&mut service, steps))
}

/// Returns a subject of two tasks on `threads` threads that share a service.
fn by_two_tasks<S>(
    name: &str,
    n: usize,
    threads: usize,
    make: impl FnOnce(&Runtime) -> S,
) -> Subject
where
    S: Service<u64, Response = ()> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: std::fmt::Debug,
{
    let runtime = match threads {
        1 => Builder::new_current_thread().enable_time().build(),
        _ => {
            let next = AtomicUsize::new(0);
            let start = move || stay_on(next.fetch_add(1, Ordering::Relaxed) % threads);
            let mut runtime = Builder::new_multi_thread();
            runtime.worker_threads(threads).on_thread_start(start).enable_time().build()
        }
    };
    let runtime = runtime.expect("a runtime");
    let service = make(&runtime);
    let on = if threads == 1 { "of one thread" } else { "on two threads" };
    Subject::new(format!("{name} by two tasks {on}"), n, move |steps| {
        let seen_threads = Arc::new(Mutex::new(HashSet::new()));
        let task = |service: &S| {
            let (mut service, seen_threads) = (service.clone(), Arc::clone(&seen_threads));
            async move {
                // Each task waits until all threads run. A blocking barrier would never open if one thread had
                // both tasks, because nobody wakes the other thread to take one.
                let is_alone = || {
                    let mut seen = seen_threads.lock().expect("no task panics with it");
                    seen.insert(thread::current().id());
                    seen.len() < threads
                };
                while is_alone() {
                    tokio::task::yield_now().await;
                }
                for i in 0..steps.div_ceil(2) {
                    service.ready().await.expect("open").call(i).await.expect("an answer");
                    if i % 64 == 0 && threads == 1 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        };
        runtime.block_on(async {
            let tasks = [task(&service), task(&service)].map(tokio::spawn);
            for task in tasks {
                task.await.expect("no panic");
            }
        });
    })
}

/// Pins this thread to a processor, because the kernel may take longer than a slice to separate two
/// threads. Without the permission the kernel places the thread.
fn stay_on(processor: usize) {
    let mut own = CpuSet::new();
    own.set(processor);
    let _ = sched_setaffinity(None, &own);
}

/// Returns a subject of two threads without a runtime, on a processor each. The threads are kept,
/// because a slice is too short to start them.
fn by_two_threads<S>(name: &str, n: usize, services: [S; 2]) -> Subject
where
    S: Service<u64, Response = ()> + Send + 'static,
{
    let together = Arc::new(Barrier::new(2));
    let mut processors = 0..;
    let threads = services.map(|mut service| {
        let (go, gone) = mpsc::channel::<u64>();
        let (done, is_done) = mpsc::channel();
        let (processor, together) = (processors.next().unwrap_or(0), Arc::clone(&together));
        thread::spawn(move || {
            stay_on(processor);
            for steps in gone {
                together.wait();
                drive(&mut service, steps);
                if done.send(()).is_err() {
                    return;
                }
            }
        });
        (go, is_done)
    });
    Subject::new(format!("{name} by two threads"), n, move |steps| {
        threads.iter().for_each(|(go, _)| go.send(steps.div_ceil(2)).expect("the thread waits"));
        threads.iter().for_each(|(_, done)| done.recv().expect("no panic"));
    })
}
