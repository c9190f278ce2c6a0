//! Picks, retries, refusals and counters.

use lvs::scheduler::RoundRobin;
use lvs::{Health, Limits};

use crate::fixture::*;

#[tokio::test]
async fn connections_are_distributed_round_robin_and_every_byte_is_counted() {
    let targets = [echo(b'a').await, echo(b'b').await, echo(b'c').await];
    let (set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder);
    let large = vec![7; 1 << 20];
    let mut names = Vec::new();
    for message in [&b""[..], b"x", &large, b"xyz", b"", b""] {
        names.push(exchange(&handle, message).await);
    }
    assert_eq!(names, b"abcabc");

    let (_, counters) = end(&handle, running).await;
    let sent = (1 << 20) + 4;
    assert_eq!((counters.accepted, counters.finished, counters.active), (6, 6, 0));
    assert_eq!((counters.bytes_to_backends, counters.bytes_to_clients), (sent, sent + 6));
    for name in ["0", "1", "2"] {
        assert_eq!((outcomes(&set, name).ok, outcomes(&set, name).total()), (2, 2));
    }
    assert!(set.snapshot().backends().iter().all(|backend| backend.load().total() == 0));
}

#[tokio::test]
async fn a_refused_connect_is_retried_at_another_backend_without_an_error_for_the_client() {
    let (refusing, _held) = refusing();
    let (set, forwarder) = forwarder_to(&[refusing, echo(b'b').await]);
    let (handle, running) = start(forwarder);
    for _ in 0..4 {
        assert_eq!(exchange(&handle, b"hello").await, b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.refused.sum()), (4, 0));
    assert_eq!(outcomes(&set, "0").connect_error, counters.failed_connects);
    assert!(counters.failed_connects >= 2, "at least every other pick is the refusing backend");
    assert_eq!((outcomes(&set, "1").ok, outcomes(&set, "1").failures()), (4, 0));
}

#[tokio::test]
async fn an_attempt_to_connect_times_out_and_another_backend_is_tried() {
    let (address, _silence) = silent().await;
    let (set, forwarder) = forwarder_to(&[address, echo(b'b').await]);
    let (handle, running) = start(forwarder.connect_timeout(Duration::from_millis(50)));
    assert_eq!(exchange(&handle, b"").await, b'b');
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.failed_connects), (1, 1));
    assert_eq!(outcomes(&set, "0").timeout, 1);
}

#[tokio::test]
async fn all_attempts_together_have_a_deadline() {
    let (first, _silence) = silent().await;
    let (second, _more_silence) = silent().await;
    let (set, forwarder) = forwarder_to(&[first, second]);
    let forwarder =
        forwarder.connect_timeout(TEST_TIMEOUT).connect_deadline(Duration::from_millis(50));
    let (handle, running) = start(forwarder);
    assert_refused(&handle).await;
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.connect_timeout, counters.failed_connects), (1, 1));
    assert_eq!((outcomes(&set, "0").timeout, outcomes(&set, "1").total()), (1, 0));
}

#[tokio::test]
async fn a_client_is_reset_and_counted_once_if_all_backends_refuse() {
    let (held, targets): (Vec<_>, Vec<_>) = (0..3).map(|_| refusing()).map(|(a, s)| (s, a)).unzip();
    let (set, forwarder) = forwarder_to(&targets);
    let (handle, running) = start(forwarder.connect_attempts(2));
    assert_refused(&handle).await;
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.active, counters.finished), (1, 0, 0));
    assert_eq!((counters.refused.connect_error, counters.refused.sum()), (1, 1));
    assert_eq!(counters.failed_connects, 2, "one failure for each attempt");
    let errors: u64 = ["0", "1", "2"].map(|name| outcomes(&set, name).connect_error).iter().sum();
    assert_eq!(errors, 2);
    drop(held);
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let (set, forwarder) = forwarder_to(&[]);
    let (handle, running) = start(forwarder);
    assert_refused(&handle).await;

    set.insert(Spec::new("down", echo(b'a').await).health(Health::Down)).expect("the name is new");
    assert_refused(&handle).await;

    set.insert(Spec::new("small", echo(b'b').await).limits(Limits::new(1)))
        .expect("the name is new");
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("the connection is proxied"), b'b');
    assert_refused(&handle).await;
    drop(first);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.no_backend, counters.refused.saturated), (2, 1));
    assert_eq!((counters.accepted, counters.refused.sum(), counters.finished), (4, 3, 1));
}

#[tokio::test]
async fn a_reset_is_passed_on_and_counted_for_the_side_that_broke() {
    let (set, forwarder) = forwarder_to(&[breaker().await, echo(b'b').await]);
    let (handle, running) = start(forwarder);

    let mut stream = open(&handle).await;
    stream.write_all(b"x").await.expect("the stream is open");
    assert_reset(stream).await;

    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("the connection is proxied"), b'b');
    stream.set_zero_linger().expect("a socket option");
    drop(stream);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.backend_aborted, counters.client_aborted, counters.finished), (1, 1, 0));
    assert_eq!(outcomes(&set, "0").app_error, 1);
    assert_eq!(outcomes(&set, "1").cancelled, 1);
}

#[tokio::test]
async fn connections_above_the_limit_wait_until_one_ends() {
    let (_set, forwarder) = forwarder_to(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.max_connections(1));
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("the connection is proxied"), b'a');
    let mut second = open(&handle).await;
    second.write_all(b"?").await.expect("the kernel queues the connection");
    until(|| handle.counters().connection_limit_waits == 1).await;
    assert_eq!(handle.counters().accepted, 1);
    drop(first);
    let mut answer = [0; 2];
    second.read_exact(&mut answer).await.expect("the connection is proxied after the first");
    assert_eq!(&answer, b"a?");
    drop(second);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.finished, counters.connection_limit_waits), (2, 2, 1));
}

#[tokio::test]
async fn the_error_of_an_address_in_use_names_the_address() {
    let (set, forwarder) = forwarder_to(&[]);
    let address_in_use = address_of(&forwarder.handle());
    let balancer = Balancer::new(&set, RoundRobin::new()).expect("rr accepts any set");
    let error = Forwarder::bind(address_in_use, balancer).expect_err("the address is in use");
    assert!(
        error.to_string().starts_with(&format!("cannot listen on {address_in_use}: ")),
        "{error}"
    );
    assert!(matches!(error, ForwardError::Bind { address, .. } if address == address_in_use));
}

/// As if the connection was in the accept queue of a backend that died.
#[tokio::test]
async fn a_connection_that_is_reset_before_any_byte_is_retried_at_another_backend() {
    let (address, server_listener) = bind_server().await;
    let (set, forwarder) = forwarder_to(&[address, echo(b'b').await]);
    let (handle, running) = start(forwarder);
    let (mut client, server) = connect_through(&handle, &server_listener).await;
    reset(server);
    assert_eq!(&read::<1>(&mut client).await, b"b");
    drop(client);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.failed_connects, counters.backend_aborted), (1, 1, 0));
    assert_eq!((outcomes(&set, "0").connect_error, outcomes(&set, "1").ok), (1, 1));
}
