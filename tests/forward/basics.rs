//! Where connections go, and what is counted.

use lvs::scheduler::RoundRobin;
use lvs::{Health, Limits};

use crate::world::*;

#[tokio::test]
async fn connections_go_round_and_every_byte_is_counted() {
    let targets = [echo(b'a').await, echo(b'b').await, echo(b'c').await];
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder);
    let big = vec![7; 1 << 20];
    let mut names = Vec::new();
    for message in [&b""[..], b"x", &big, b"xyz", b"", b""] {
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
    assert!(set.snapshot().backends().iter().all(|b| b.load().total() == 0));
}

#[tokio::test]
async fn a_refused_connect_is_tried_elsewhere_and_the_client_notices_nothing() {
    let (refusing, _held) = refusing();
    let (set, forwarder) = world(&[refusing, echo(b'b').await]);
    let (handle, running) = start(forwarder);
    for _ in 0..4 {
        assert_eq!(exchange(&handle, b"hello").await, b'b');
    }
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.refused.sum()), (4, 0));
    assert_eq!(outcomes(&set, "0").connect_error, counters.failed_connects);
    assert!(counters.failed_connects >= 2, "at least every other pick was the refusing one");
    assert_eq!((outcomes(&set, "1").ok, outcomes(&set, "1").failures()), (4, 0));
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_timed_out() {
    let (address, _silence) = silent().await;
    let (set, forwarder) = world(&[address, echo(b'b').await]);
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
    let (set, forwarder) = world(&[first, second]);
    let forwarder = forwarder.connect_timeout(LONG).connect_deadline(Duration::from_millis(50));
    let (handle, running) = start(forwarder);
    assert_turned_away(&handle).await;
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.connect_timeout, counters.failed_connects), (1, 1));
    assert_eq!((outcomes(&set, "0").timeout, outcomes(&set, "1").total()), (1, 0));
}

#[tokio::test]
async fn when_all_refuse_the_client_is_reset_and_counted_once() {
    let (held, targets): (Vec<_>, Vec<_>) = (0..3).map(|_| refusing()).map(|(a, s)| (s, a)).unzip();
    let (set, forwarder) = world(&targets);
    let (handle, running) = start(forwarder.connect_attempts(2));
    assert_turned_away(&handle).await;
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.active, counters.finished), (1, 0, 0));
    assert_eq!((counters.refused.connect_error, counters.refused.sum()), (1, 1));
    assert_eq!(counters.failed_connects, 2, "one for each attempt");
    let errors: u64 = ["0", "1", "2"].map(|name| outcomes(&set, name).connect_error).iter().sum();
    assert_eq!(errors, 2);
    drop(held);
}

#[tokio::test]
async fn nobody_to_choose_is_counted_by_reason() {
    let (set, forwarder) = world(&[]);
    let (handle, running) = start(forwarder);
    assert_turned_away(&handle).await;

    set.insert(Spec::new("down", echo(b'a').await).health(Health::Down)).expect("a new name");
    assert_turned_away(&handle).await;

    set.insert(Spec::new("small", echo(b'b').await).limits(Limits::new(1))).expect("a new name");
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("carried"), b'b');
    assert_turned_away(&handle).await;
    drop(first);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.refused.no_backend, counters.refused.saturated), (2, 1));
    assert_eq!((counters.accepted, counters.refused.sum(), counters.finished), (4, 3, 1));
}

#[tokio::test]
async fn a_break_is_passed_on_and_held_against_the_side_that_broke() {
    let (set, forwarder) = world(&[breaker().await, echo(b'b').await]);
    let (handle, running) = start(forwarder);

    let mut stream = open(&handle).await;
    stream.write_all(b"x").await.expect("open");
    assert_reset(stream).await;

    let mut stream = open(&handle).await;
    assert_eq!(stream.read_u8().await.expect("carried"), b'b');
    stream.set_zero_linger().expect("a socket option");
    drop(stream);

    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.backend_aborted, counters.client_aborted, counters.finished), (1, 1, 0));
    assert_eq!(outcomes(&set, "0").app_error, 1);
    assert_eq!(outcomes(&set, "1").cancelled, 1);
}

#[tokio::test]
async fn beyond_the_maximum_clients_wait_their_turn() {
    let (_set, forwarder) = world(&[echo(b'a').await]);
    let (handle, running) = start(forwarder.max_connections(1));
    let mut first = open(&handle).await;
    assert_eq!(first.read_u8().await.expect("carried"), b'a');
    let mut second = open(&handle).await;
    second.write_all(b"?").await.expect("queued by the kernel");
    until(|| handle.counters().connection_limit_waits == 1).await;
    assert_eq!(handle.counters().accepted, 1);
    drop(first);
    let mut answer = [0; 2];
    second.read_exact(&mut answer).await.expect("carried in its turn");
    assert_eq!(&answer, b"a?");
    drop(second);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.accepted, counters.finished, counters.connection_limit_waits), (2, 2, 1));
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (set, forwarder) = world(&[]);
    let taken = at(&forwarder.handle());
    let balancer = Balancer::new(&set, RoundRobin).expect("rr takes any set");
    let error = Forwarder::bind(taken, balancer).expect_err("in use");
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    assert!(matches!(error, ForwardError::Bind { address, .. } if address == taken));
}

/// It was in the backend's accept queue when the backend died, say.
#[tokio::test]
async fn a_connection_that_is_reset_before_anything_passed_is_tried_elsewhere() {
    let (address, stage) = stage().await;
    let (set, forwarder) = world(&[address, echo(b'b').await]);
    let (handle, running) = start(forwarder);
    let (mut client, server) = meet(&handle, &stage).await;
    reset(server);
    assert_eq!(&read::<1>(&mut client).await, b"b");
    drop(client);
    let (_, counters) = end(&handle, running).await;
    assert_eq!((counters.finished, counters.failed_connects, counters.backend_aborted), (1, 1, 0));
    assert_eq!((outcomes(&set, "0").connect_error, outcomes(&set, "1").ok), (1, 1));
}
