//! `Reconnect`: connections that are made, break, and are made again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use lvs::tower::{ConnectError, Reconnect, ReconnectConfig};
use tokio::time::{Instant, sleep};
use tokio_test::task;

use crate::world::*;

/// The result of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    Made,
    Refused,
    /// A connection that breaks before it is ever ready.
    BrokenAtOnce,
    Never,
}

/// A `MakeService` whose attempts end as the test sets.
#[derive(Clone)]
pub(crate) struct Connector {
    fate: Arc<Mutex<Fate>>,
    made: Arc<Mutex<Vec<Made>>>,
    attempts: Arc<Mutex<Vec<Instant>>>,
}

impl Connector {
    pub(crate) fn new() -> Self {
        let fate = Arc::new(Mutex::new(Fate::Made));
        Self { fate, made: Arc::default(), attempts: Arc::default() }
    }

    pub(crate) fn set_fate(&self, fate: Fate) {
        *self.fate.lock().expect("no panic") = fate;
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        let made = self.made.lock().expect("no panic");
        made.iter().for_each(|(_, broken)| broken.store(true, Ordering::SeqCst));
    }

    /// Returns the targets of the connections made, in order.
    pub(crate) fn made(&self) -> Vec<u32> {
        self.made.lock().expect("no panic").iter().map(|(target, _)| *target).collect()
    }

    fn attempts(&self) -> Vec<Instant> {
        self.attempts.lock().expect("no panic").clone()
    }
}

impl Service<u32> for Connector {
    type Response = Connection;
    type Error = &'static str;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Connection, &'static str>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: u32) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.attempts.lock().expect("no panic").push(Instant::now());
            sleep(Duration::from_millis(1)).await;
            let fate = *this.fate.lock().expect("no panic");
            match fate {
                Fate::Refused => return Err("refused"),
                Fate::Never => std::future::pending().await,
                Fate::Made | Fate::BrokenAtOnce => {}
            }
            let mut made = this.made.lock().expect("no panic");
            let broken = Arc::new(AtomicBool::new(fate == Fate::BrokenAtOnce));
            made.push((target, broken.clone()));
            Ok(Connection { number: made.len() as u32, broken, calls: Arc::default() })
        })
    }
}

/// The target of a connection, and whether it is broken.
type Made = (u32, Arc<AtomicBool>);

#[derive(Clone)]
pub(crate) struct Connection {
    number: u32,
    broken: Arc<AtomicBool>,
    calls: Arc<AtomicU32>,
}

impl Service<()> for Connection {
    type Response = u32;
    type Error = &'static str;
    type Future = std::future::Ready<Result<u32, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(if self.broken.load(Ordering::SeqCst) { Err("broken") } else { Ok(()) })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(self.number))
    }
}

#[tokio::test(start_paused = true)]
async fn clones_share_a_connection_that_the_first_request_makes() {
    let connector = Connector::new();
    let service = Reconnect::new(connector.clone(), 7);
    sleep(Duration::from_secs(9)).await;
    assert!(connector.attempts().is_empty() && !service.is_connected());
    let asked: Vec<_> = (0..10).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    for asked in asked {
        assert_eq!(asked.await.expect("no panic").expect("connected"), 1);
    }
    assert_eq!((connector.made(), service.is_connected(), *service.target()), (vec![7], true, 7));
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_is_made_again_at_once_without_a_failed_request() {
    let connector = Connector::new();
    let service = Reconnect::new(connector.clone(), 7);
    service.clone().oneshot(()).await.expect("connected");
    connector.cut();
    let begun = Instant::now();
    let mut handle = service.clone();
    assert_eq!(service.clone().oneshot(()).await.expect("made again"), 2);
    assert_eq!(begun.elapsed(), Duration::from_millis(1));
    assert_eq!(ready_and_call(&mut handle).await, 2);
    connector.cut();
    // A handle with a clone of the broken connection notices as well.
    assert_eq!(ready_and_call(&mut handle).await, 3);
    assert_eq!(connector.made().len(), 3);
}

async fn ready_and_call(service: &mut Reconnect<Connector, u32>) -> u32 {
    ServiceExt::<()>::ready(service).await.expect("connected").call(()).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_fail_requests_at_once_and_back_off() {
    let connector = Connector::new();
    connector.set_fate(Fate::Refused);
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(2));
    let service = Reconnect::with_config(
        ReconnectConfig::new().backoff(first, longest).expect("in order"),
        connector.clone(),
        7,
    );
    let connect_error = async || {
        let error = service.clone().oneshot(()).await.expect_err("refused");
        error.downcast_ref::<ConnectError>().expect("a connect error").clone()
    };
    let error = connect_error().await;
    assert_eq!((error.failures, error.source.to_string()), (1, "refused".into()));
    assert_eq!(error.to_string(), "no connection after 1 failed attempts: refused");
    let begun = Instant::now();
    assert_eq!(
        (connect_error().await.failures, begun.elapsed()),
        (1, Duration::ZERO),
        "the request does not wait"
    );

    sleep(Duration::from_secs(60)).await;
    let attempts = connector.attempts();
    let pauses: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let ms = Duration::from_millis;
    for (i, pause) in pauses.iter().enumerate() {
        let wait = (first * (1 << i.min(9))).min(longest);
        // The attempt takes a millisecond, and the timer may take another.
        assert!((wait / 2..=wait + ms(2)).contains(pause), "{i}: {pauses:?}");
    }
    assert!(attempts.len() >= 30, "{}", attempts.len());
    assert_eq!(connect_error().await.failures as usize, attempts.len());

    connector.set_fate(Fate::Made);
    sleep(longest + ms(2)).await;
    assert!(service.is_connected(), "connects without a request");
    assert_eq!(service.clone().oneshot(()).await.expect("connected"), 1);
    connector.set_fate(Fate::Refused);
    connector.cut();
    assert_eq!(connect_error().await.failures, 1, "failures count from the last connection");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_before_it_is_ready_is_a_failed_attempt() {
    let connector = Connector::new();
    connector.set_fate(Fate::BrokenAtOnce);
    let service = Reconnect::new(connector.clone(), 7);
    for _ in 0..100 {
        service.clone().oneshot(()).await.expect_err("never ready");
        sleep(Duration::from_millis(10)).await;
    }
    let attempts = connector.attempts().len();
    assert!((3..=8).contains(&attempts), "{attempts} attempts in a second");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_with_the_connect_timeout() {
    let connector = Connector::new();
    connector.set_fate(Fate::Never);
    let config = ReconnectConfig::new().connect_timeout(Duration::from_secs(2));
    let service = Reconnect::with_config(config, connector.clone(), 7);
    let begun = Instant::now();
    let error = service.clone().oneshot(()).await.expect_err("not connected");
    assert!(error.downcast_ref::<ConnectError>().is_some());
    assert!(begun.elapsed() <= Duration::from_millis(2_002), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn attempts_end_when_the_last_handle_is_dropped() {
    let connector = Connector::new();
    connector.set_fate(Fate::Refused);
    let service = Reconnect::new(connector.clone(), 7);
    service.connect();
    sleep(Duration::from_secs(1)).await;
    drop(service);
    sleep(Duration::from_secs(20)).await;
    let attempts = connector.attempts().len();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(connector.attempts().len(), attempts);
}

#[tokio::test(start_paused = true)]
async fn a_call_before_poll_ready_fails() {
    let mut service = Reconnect::new(Connector::new(), 7);
    let error = service.call(()).await.expect_err("not ready");
    assert_eq!(error.downcast_ref(), Some(&BalanceError::NotReady));
}

#[tokio::test(start_paused = true)]
async fn a_balancer_passes_over_a_connecting_backend_and_waits_when_all_connect() {
    let connector = Connector::new();
    let set = BackendSet::new();
    for target in [1_u32, 2] {
        let instance = Reconnect::new(connector.clone(), target);
        set.insert(Spec::new(target.to_string().as_str(), instance)).expect("a new name");
    }
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("the scheduler accepts any set");
    let service = Balance::new(balancer);
    // Both backends connect; the request waits for one connection.
    service.clone().oneshot(()).await.expect("connected");
    sleep(Duration::from_secs(1)).await;
    connector.set_fate(Fate::Never);
    connector.made.lock().expect("no panic")[0].1.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let mut asked = task::spawn(service.clone().oneshot(()));
        assert_eq!(assert_ready_ok!(asked.poll()), 2, "the connected backend, at the first poll");
    }
    connector.cut();
    let begun = Instant::now();
    let error = balance_error(service.clone().oneshot(()).await);
    assert!(matches!(error, BalanceError::Busy { asked: 2, .. }), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!(load(&set), 0);
}
